//! Work whose length others choose, on a runtime whose other tasks must not wait for it.
//!
//! What a request to the Admin API costs is for its client to say: a body of megabytes, a list of
//! thousands of rows, a plugin that is slow to take its settings. So each step of such a task is done
//! where tokio has handed all other tasks of the thread to another one before. A step that takes a second
//! then takes a second of a core, and no other request waits for it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::sync::{AcquireError, Semaphore, SemaphorePermit};
use tokio::task::block_in_place;

/// Steps of requests that are done at a time, in turn. Each takes a thread of tokio's pool for blocking
/// work, which has 512, and a runtime whose pool has none left stands still.
static TURNS: Semaphore = Semaphore::const_new(64);

/// Does all steps of a future where they hold nothing up. Only on a runtime of several threads.
pub(crate) async fn in_place<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|cx| block_in_place(|| future.as_mut().poll(cx))).await
}

/// The same for one of any number: no more than so many steps are done at a time, in the order in which
/// they were asked for. A task that waits for something holds up no other.
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

/// A place among those who wait for one of the [`TURNS`]; none if there are free ones.
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
        // It is never closed.
        Poll::Ready(permit)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    /// As many steps that do not end as the runtime has threads, and twice that.
    #[test]
    fn a_step_that_takes_long_holds_up_no_other_task() {
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
    fn more_than_there_are_turns_for_come_one_after_the_other() {
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
