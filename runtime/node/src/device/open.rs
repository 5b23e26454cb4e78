//! Opening a session: dialling, handshakes, epochs.

use std::path::Path;
use std::sync::Arc;

use pponnx_engine::LoadedPlan;
use pponnx_keys::{AcceptError, KeyFile, SessionKey, SessionNonce};
use pponnx_net::{ClientTls, Connection, Deadline, Identity, connect};
use pponnx_plans::value::Role;
use pponnx_wire::message::{DeviceId, Message};
use pponnx_wire::states::device::{SessionReply, greet_edge_b};
use pponnx_wire::{Limits as FrameLimits, Misbehaviour};
use zeroize::Zeroizing;

use super::line::Line;
use super::{DrawNonce, EdgeAddress, Timeouts};
use crate::compute::blocking;
use crate::error::NodeError;
use crate::topology::largest;

/// Most attempts to open a session: one, one past the epoch that edge B names, and some for a second process of this
/// device. An edge B that goes on naming higher epochs would otherwise hold the device for ever.
const MAX_OPENINGS: u32 = 4;

pub(super) async fn dial(
    edge: Role,
    at: &EdgeAddress,
    identity: &Identity,
    t: Timeouts,
) -> Result<Connection, NodeError> {
    let failed = |e| NodeError::connecting(edge, e);
    let tls = ClientTls::new(identity, &[at.pin]).map_err(failed)?;
    let mut connection = connect(&at.address, &tls, Deadline::after(t.connect)).await.map_err(failed)?;
    // an edge that takes no upload is as silent as one that gives no answer
    connection.writer.set_stall_limit(t.reply);
    Ok(connection)
}

pub(super) async fn send(edge: Role, connection: &mut Connection, message: &Message) -> Result<(), NodeError> {
    let failed = |e| NodeError::connecting(edge, e);
    connection.writer.write(message).await.map_err(failed)?;
    connection.writer.flush().await.map_err(failed)
}

pub(super) async fn exchange(
    edge: Role,
    c: &mut Connection,
    message: Message,
    t: Timeouts,
) -> Result<Message, NodeError> {
    send(edge, c, &message).await?;
    c.reader.read(Deadline::after(t.connect)).await.map_err(|e| NodeError::connecting(edge, e))
}

/// Advances the epoch, draws a nonce and opens a session; tries again past the epoch that edge B names if ours was used.
pub(super) async fn open_with_edge_b(
    plan: &Arc<LoadedPlan>,
    device: DeviceId,
    identity: &Identity,
    at: &EdgeAddress,
    key: &Path,
    timeouts: Timeouts,
    nonce: &DrawNonce,
) -> Result<(SessionKey, Line, u32), NodeError> {
    let edge = Role::EdgeB;
    let digest = *plan.digest();
    let mut connection = dial(edge, at, identity, timeouts).await?;
    let (state, hello) = greet_edge_b(device, digest);
    let welcome = exchange(edge, &mut connection, hello, timeouts).await?;
    let mut greeted = state.handle(welcome).map_err(|e| NodeError::protocol(edge, e))?;
    let in_flight = greeted.welcome().in_flight;
    let mut past: Option<u64> = None;
    for tries in 1u32.. {
        if tries > MAX_OPENINGS {
            return Err(NodeError::protocol(edge, Misbehaviour::TooManyTries { tries }.into()));
        }
        let path = key.to_path_buf();
        let advanced = blocking(move || {
            KeyFile::read(&path)?.require(&path, &device, &digest)?;
            match past {
                None => KeyFile::advance(&path).map_err(AcceptError::from),
                Some(past) => match KeyFile::advance_past(&path, past) {
                    // another process of this device went past it meanwhile
                    Err(AcceptError::Behind { .. }) => KeyFile::advance(&path).map_err(AcceptError::from),
                    advanced => advanced,
                },
            }
        });
        let file = advanced.await??;
        let drawn = Zeroizing::new(nonce()?);
        let session = SessionKey::session(&file.key, &SessionNonce(*drawn));
        let (waiting, open) = greeted.open(file.key.epoch(), *drawn, session.sid());
        send(edge, &mut connection, &open).await?;
        // edge B may first have to reach edge A
        let deadline = Deadline::after(timeouts.connect.saturating_mul(3));
        let reply = connection.reader.read(deadline).await.map_err(|e| NodeError::connecting(edge, e))?;
        match waiting.handle(reply).map_err(|e| NodeError::protocol(edge, e))? {
            SessionReply::Open(established) => {
                connection.reader.set_limits(FrameLimits::with_payload(largest(std::iter::once(plan), edge)));
                return Ok((session, Line::new(edge, connection, established), in_flight));
            }
            SessionReply::Behind { highest, retry } => {
                greeted = retry;
                past = Some(highest);
            }
        }
    }
    Err(NodeError::Internal("more attempts than numbers".into()))
}
