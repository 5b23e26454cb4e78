//! Many requests of one command: rows of arrays as inputs, several in flight, outputs put together again.

use std::sync::Arc;
use std::time::Instant;

use pponnx_engine::value::{Elements, TensorValue};
use pponnx_node::{Device, Inference, NodeError};
use pponnx_plans::plan::Port;
use pponnx_plans::value::Shape;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::failure::{Failure, Outcome};

/// Results of many requests, in the order of their inputs.
pub struct Many {
    /// One a request.
    pub results: Vec<Inference>,
    /// From the first input to the last result, in milliseconds.
    pub wall_ms: f64,
    /// Bytes on the device's sockets meanwhile.
    pub socket_bytes: u64,
}

/// Runs all of these, `at_once` in flight. After an error no other begins; those under way are waited for.
///
/// # Errors
/// The first error.
pub async fn infer_all(device: &Arc<Device>, inputs: Vec<Vec<TensorValue>>, at_once: usize) -> Result<Many, NodeError> {
    let (started, before) = (Instant::now(), device.socket_bytes());
    let room = Arc::new(Semaphore::new(at_once.max(1)));
    let mut running = JoinSet::new();
    let mut results: Vec<Option<Inference>> = inputs.iter().map(|_| None).collect();
    let mut failed = None;
    let mut inputs = inputs.into_iter().enumerate();
    loop {
        tokio::select! {
            place = Arc::clone(&room).acquire_owned(), if inputs.len() > 0 && failed.is_none() => {
                let (Ok(place), Some((at, input))) = (place, inputs.next()) else { continue };
                let device = Arc::clone(device);
                running.spawn(async move {
                    let result = device.infer(input).await;
                    drop(place);
                    (at, result)
                });
            }
            Some(done) = running.join_next() => match done {
                Ok((at, Ok(inference))) => {
                    if let Some(place) = results.get_mut(at) {
                        *place = Some(inference);
                    }
                }
                Ok((_, Err(error))) => failed = failed.or(Some(error)),
                Err(error) => failed = failed.or(Some(NodeError::Internal(error.to_string()))),
            },
            else => break,
        }
    }
    match failed {
        Some(error) => Err(error),
        None => {
            let wall_ms = started.elapsed().as_secs_f64() * 1e3;
            let socket_bytes = device.socket_bytes() - before;
            Ok(Many { results: results.into_iter().flatten().collect(), wall_ms, socket_bytes })
        }
    }
}

/// The p-th percentile of times: the smallest that at least this share of them does not exceed.
pub fn percentile(times: &[f64], p: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (p / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// The rows of an array: the parts along its first axis, which goes away.
///
/// # Errors
/// A fault of this program if shape and elements disagree.
pub fn rows(value: &TensorValue) -> Outcome<Vec<TensorValue>> {
    let Some((many, dims)) = value.shape().0.split_first() else { return Ok(Vec::new()) };
    let size = dims.iter().product::<usize>() * value.dtype().bytes();
    let bytes = value.elements().to_le_bytes();
    let row = |index: usize| {
        let bytes = bytes.get(index * size..(index + 1) * size).unwrap_or_default();
        TensorValue::from_le_bytes(value.dtype(), dims.to_vec(), bytes)
            .map_err(|e| Box::new(Failure::internal(e.to_string())))
    };
    (0..*many).map(row).collect()
}

/// The shape of `many` outputs of this port put together: along a leading axis of 1, else along a new one.
pub fn stacked_port(port: &Port, many: usize) -> Port {
    let rest = match port.shape.0.split_first() {
        Some((1, rest)) => rest,
        _ => port.shape.0.as_slice(),
    };
    let dims = std::iter::once(many).chain(rest.iter().copied()).collect();
    Port { shape: Shape(dims), ..port.clone() }
}

/// Outputs of many requests put together, one tensor a port.
///
/// # Errors
/// A fault of this program if they do not fit each other.
pub fn stack(ports: &[Port], results: &[Inference]) -> Outcome<Vec<TensorValue>> {
    let one = |(at, port): (usize, &Port)| {
        let parts = results.iter().filter_map(|r| r.outputs.get(at)).map(|v| v.elements().to_le_bytes());
        let elements = Elements::from_le_bytes(port.dtype, &parts.collect::<Vec<_>>().concat());
        TensorValue::new(stacked_port(port, results.len()).shape, elements)
            .map_err(|e| Box::new(Failure::internal(e.to_string())))
    };
    ports.iter().enumerate().map(one).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use pponnx_node::Stats;
    use pponnx_plans::value::DType;

    fn tensor(dims: &[usize], data: &[f32]) -> TensorValue {
        TensorValue::from_f32(dims.to_vec(), data.to_vec()).unwrap()
    }

    #[test]
    fn rows_and_stacks_are_inverse() {
        let all = tensor(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let rows = rows(&all).unwrap();
        assert_eq!((rows.len(), &rows[1]), (3, &tensor(&[2], &[3.0, 4.0])));
        let port = Port { name: "y".into(), dtype: DType::F32, shape: Shape(vec![1, 2]) };
        let result = |i| {
            let row: &TensorValue = &rows[i];
            let outputs = vec![tensor(&[1, 2], row.as_f32().unwrap())];
            Inference { outputs, stats: Stats::default() }
        };
        let results: Vec<Inference> = (0..3).map(result).collect();
        assert_eq!(stack(&[port], &results).unwrap(), [all]);
        let scalar = Port { name: "s".into(), dtype: DType::F32, shape: Shape(vec![]) };
        assert_eq!(stacked_port(&scalar, 4).shape.0, [4]);
    }

    #[test]
    fn percentiles_are_times_that_occurred() {
        let times = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!((percentile(&times, 50.0), percentile(&times, 99.0), percentile(&times, 1.0)), (3.0, 5.0, 1.0));
        assert_eq!(percentile(&[], 50.0), 0.0);
    }
}
