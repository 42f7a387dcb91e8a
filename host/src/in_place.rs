//! Work whose length a client chooses, on a runtime whose other tasks must not wait for it.
//!
//! The client of the Admin API determines how much a request costs: a body of megabytes, a list of
//! thousands of rows, a plugin that is slow to accept its settings. So each step (poll) of such a
//! task runs in `block_in_place`: tokio first moves all other tasks of the thread to another
//! thread. A step that takes a second then takes a second of a core, and no other request waits for
//! it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};
use tokio::task::block_in_place;

/// Limits the number of steps that run at the same time. Each takes a thread of tokio's pool for
/// blocking work, which has 512. If no thread of the pool is left, the whole runtime stops.
static TURNS: Semaphore = Semaphore::const_new(64);

/// Runs all steps of a future without blocking other tasks. Only for a runtime with several
/// threads.
pub(crate) async fn in_place<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| block_in_place(|| future.as_mut().poll(cx))).await
}

/// Runs all steps of a future of which there may be any number without blocking other tasks: the
/// number of steps that run at the same time is limited, and they run in the order in which they
/// were requested. A future that waits does not block others.
pub(crate) async fn in_turn<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut turn = Turn(None);
    poll_fn(|cx| {
        let _permit = ready!(turn.poll(cx));
        block_in_place(|| future.as_mut().poll(cx))
    })
    .await
}

type Acquired = Result<SemaphorePermit<'static>, AcquireError>;

/// The place in the queue for one of the [`TURNS`]; `None` while the future is not in the queue.
struct Turn(Option<Pin<Box<dyn Future<Output = Acquired> + Send>>>);

impl Turn {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Acquired> {
        if self.0.is_none()
            && let Ok(permit) = TURNS.try_acquire()
        {
            return Poll::Ready(Ok(permit));
        }
        let waiting = self.0.get_or_insert_with(|| Box::pin(TURNS.acquire()));
        let permit = ready!(waiting.as_mut().poll(cx));
        self.0 = None;
        // The semaphore is never closed.
        Poll::Ready(permit)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    /// Twice as many steps that do not end as the runtime has threads.
    #[test]
    fn a_long_step_does_not_delay_other_tasks() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (go, wait) = channel::<()>();
        let wait = std::sync::Arc::new(std::sync::Mutex::new(wait));
        let stuck: Vec<_> = (0..4)
            .map(|_| {
                let wait = std::sync::Arc::clone(&wait);
                runtime.spawn(in_turn(async move {
                    let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(600));
                }))
            })
            .collect();
        let answered = async {
            for _ in 0..100 {
                let task = in_turn(async { tokio::task::yield_now().await });
                runtime.spawn(task).await.unwrap();
            }
        };
        runtime.block_on(answered);
        drop(go);
        for task in stuck {
            runtime.block_on(task).unwrap();
        }
    }

    #[test]
    fn more_tasks_than_turns_all_complete() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let tasks: Vec<_> = (0..500)
            .map(|_| {
                runtime.spawn(in_turn(async {
                    for _ in 0..3 {
                        std::thread::sleep(Duration::from_micros(100));
                        tokio::task::yield_now().await;
                    }
                }))
            })
            .collect();
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
    }
}
