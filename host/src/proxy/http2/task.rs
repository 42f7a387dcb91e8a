//! The tasks of streams, on the runtime of their worker.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::rt::Executor;
use pin_project_lite::pin_project;

use super::super::client::Client;
use super::super::streams::Stream;

/// Starts the tasks of a connection's streams.
#[derive(Clone)]
pub(super) struct StreamExecutor {
    client: Rc<Client>,
}

impl StreamExecutor {
    pub(super) fn new(client: &Rc<Client>) -> Self {
        Self {
            client: Rc::clone(client),
        }
    }
}

impl<F: Future + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, task: F) {
        // hyper starts the task of a stream as soon as its request was begun, and one that sends
        // the bytes of a tunnel as soon as it has the response that opens it.
        let stream = self
            .client
            .streams()
            .and_then(|streams| streams.take_next());
        tokio::task::spawn_local(StreamTask { task, stream });
    }
}

pin_project! {
    /// A task of hyper. While it waits for the client to take a part of the response, the body of
    /// the request is sent on. It ends early if the client takes nothing for too long, and then
    /// hyper resets the stream.
    struct StreamTask<F> {
        #[pin]
        task: F,
        stream: Option<Rc<Stream>>,
    }
}

impl<F: Future> Future for StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this
            .stream
            .as_ref()
            .is_some_and(|stream| stream.is_expired())
        {
            // What hyper has not sent yet is not sent: a tunnel would seem to end in order.
            return Poll::Ready(());
        }
        if this.task.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match this.stream {
            Some(stream) => stream.poll_stalled(cx),
            None => Poll::Pending,
        }
    }
}
