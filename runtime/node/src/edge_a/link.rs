//! Edge A's end of the link to edge B: sessions are announced, corrections arrive.

use pponnx_net::{Connection, Deadline, NetError, Pin};
use pponnx_plans::value::Role;
use pponnx_wire::Limits as FrameLimits;
use pponnx_wire::message::{Message, PeerRole, Refuse, RefuseCode, Sid};
use pponnx_wire::states::edge::EdgeBAtA;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

use super::{NodeErrorOrEnd, Shared, refused, stopped_and_idle, turn_down};
use crate::error::NodeError;
use crate::sessions::Session;
use crate::topology::largest;

pub(super) async fn converse(
    shared: &Shared,
    c: Connection,
    state: EdgeBAtA,
    pin: Option<Pin>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), NodeError> {
    let (mut reader, mut writer) = c.split();
    if !pin.is_some_and(|p| shared.callers.contains(&p)) {
        let refuse = Refuse::new(RefuseCode::WrongRole, "this identity is not that of an edge B");
        turn_down(&mut writer, refuse.clone()).await;
        return Err(refused(Role::EdgeB, refuse));
    }
    let (mut established, welcome) = state.welcome();
    let lost = |e: NetError| NodeError::connecting(Role::EdgeB, e);
    writer.write(&welcome).await.map_err(lost)?;
    writer.flush().await.map_err(lost)?;
    reader.set_limits(FrameLimits::with_payload(largest(shared.plans.values().map(|p| &p.plan), Role::EdgeB)));

    let (link, mut outgoing) = mpsc::unbounded_channel();
    let mut own: Vec<Sid> = Vec::new();
    let result = loop {
        let message = tokio::select! {
            message = reader.read(Deadline::never()) => message,
            Some(message) = outgoing.recv() => {
                let sent = async {
                    writer.write(&message).await?;
                    // what the sessions said meanwhile goes along
                    while let Ok(message) = outgoing.try_recv() {
                        writer.write(&message).await?;
                    }
                    writer.flush().await
                };
                match sent.await {
                    Ok(()) => continue,
                    Err(e) => break Err(lost(e)),
                }
            }
            () = stopped_and_idle(&mut stop, &shared.busy) => break Ok(()),
        };
        let message = match message.map_err(NodeErrorOrEnd::from) {
            Ok(message) => message,
            Err(NodeErrorOrEnd::End) => break Ok(()),
            Err(NodeErrorOrEnd::Error(e)) => break Err(lost(e)),
        };
        if let Some(observer) = &shared.observer {
            observer(PeerRole::EdgeB, &message);
        }
        match established.receive(message) {
            Ok(message) => {
                if let Err(what) = from_edge_b(shared, message, &link, &mut own) {
                    break Err(NodeError::Settings(format!("edge B misbehaved: {what}")));
                }
            }
            Err(e) => break Err(NodeError::protocol(Role::EdgeB, e)),
        }
    };
    for sid in own {
        shared.sessions.remove(&sid);
    }
    result
}

fn from_edge_b(
    shared: &Shared,
    message: Message,
    link: &mpsc::UnboundedSender<Message>,
    own: &mut Vec<Sid>,
) -> Result<(), String> {
    // every message but the first of a session must be of a session that this link announced
    let find = |sid: &Sid, own: &[Sid]| {
        let session = own.contains(sid).then(|| shared.sessions.find(sid)).flatten();
        session.ok_or("a message for a session that it did not announce")
    };
    match message {
        Message::Session(announced) => {
            let sid = announced.sid;
            let session = shared
                .plans
                .get(&announced.bundle)
                .map(|served| Session::new(&announced, Arc::clone(&served.plan), shared.limits.prefetch, link.clone()));
            let taken = session.filter(|s| shared.sessions.insert(Arc::clone(s), shared.limits.sessions));
            if let Some(session) = taken {
                own.push(sid);
                session.open();
            } else {
                tracing::warn!("a session was turned down: unknown bundle, name in use, or too many sessions");
                // edge B tells its device
                let _ = link.send(Message::SessionClosed { sid });
            }
        }
        Message::Correction(correction) => {
            // a session that just ended may have corrections on the way
            if let Ok(session) = find(&correction.sid, own) {
                session.put(correction)?;
            }
        }
        Message::Abort(abort) => {
            if let Some(session) = abort.sid.and_then(|sid| find(&sid, own).ok()) {
                session.abort(abort);
            }
        }
        Message::SessionClosed { sid } => {
            shared.sessions.remove(&sid);
            own.retain(|s| *s != sid);
        }
        Message::Ping { token } => {
            // a closed link ends this task anyway
            let _ = link.send(Message::Pong { token });
        }
        _ => {}
    }
    Ok(())
}
