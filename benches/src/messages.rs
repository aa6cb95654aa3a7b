//! The messages of calls to a Greeter.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio_stream::Stream;
use tonic::Status;

use crate::helloworld::{HelloReply, HelloRequest};

pub fn hello() -> HelloRequest {
    HelloRequest {
        name: "Ferris".to_owned(),
    }
}

pub fn reply() -> HelloReply {
    HelloReply {
        message: "Hello Ferris!".to_owned(),
    }
}

/// A number of messages, with a pause after each: tonic puts what is ready at once into
/// one frame.
pub struct Paced<T> {
    left: u32,
    is_pause: bool,
    make: fn() -> T,
}

impl<T> Paced<T> {
    pub fn new(messages: u32, make: fn() -> T) -> Self {
        Self {
            left: messages,
            is_pause: false,
            make,
        }
    }

    fn poll_message(&mut self, context: &Context<'_>) -> Poll<Option<T>> {
        if self.is_pause {
            self.is_pause = false;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        self.is_pause = true;
        Poll::Ready(Some((self.make)()))
    }
}

// Of replies, which may fail, and of requests, which do not.
impl Stream for Paced<HelloReply> {
    type Item = Result<HelloReply, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_message(context).map(|reply| reply.map(Ok))
    }
}

impl Stream for Paced<HelloRequest> {
    type Item = HelloRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_message(context)
    }
}
