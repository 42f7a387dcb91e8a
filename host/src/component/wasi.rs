//! The WASI of guests: the interfaces that std of `wasm32-wasip2` imports, with nothing real behind
//! them.
//!
//! wasmtime-wasi implements what needs no more than an empty context (arguments, files, terminals).
//! The rest is implemented here, for two reasons. The synchronous streams and pollables of
//! wasmtime-wasi block on tokio, which panics on a thread that runs tokio already, so a guest that
//! prints or sleeps would end a worker. And its clocks and random numbers are real, so two
//! instances would answer differently.

use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::sync::filesystem::types;
use wasmtime_wasi::p2::bindings::sync::io::poll::{self, Pollable};
use wasmtime_wasi::p2::bindings::sync::io::streams::{self, InputStream, OutputStream};
use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem, io, random};
use wasmtime_wasi::p2::{StreamError, StreamResult};

use super::guest::Guest;

/// Bytes that a guest may write at once.
const WRITE: u64 = 4096;

/// The stream that is standard error.
const STDERR: u32 = 2;

/// Links the interfaces of WASI that a guest may import.
pub(crate) fn add_wasi<T: Send + 'static>(linker: &mut Linker<Guest<T>>) -> wasmtime::Result<()> {
    let l = linker;
    cli::environment::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::exit::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::terminal_input::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::terminal_output::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::terminal_stdin::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::terminal_stdout::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    cli::terminal_stderr::add_to_linker::<_, WasiCli>(l, Guest::cli)?;
    filesystem::preopens::add_to_linker::<_, WasiFilesystem>(l, Guest::filesystem)?;
    types::add_to_linker::<_, WasiFilesystem>(l, Guest::filesystem)?;

    // The rest is implemented by `Guest`.
    cli::stdin::add_to_linker::<_, HasSelf<Guest<T>>>(l, |guest| guest)?;
    cli::stdout::add_to_linker::<_, HasSelf<Guest<T>>>(l, |guest| guest)?;
    cli::stderr::add_to_linker::<_, HasSelf<Guest<T>>>(l, |guest| guest)?;
    clocks::monotonic_clock::add_to_linker::<_, HasSelf<Guest<T>>>(l, |guest| guest)?;
    clocks::wall_clock::add_to_linker::<_, HasSelf<Guest<T>>>(l, |guest| guest)?;
    io::error::add_to_linker::<_, HasSelf<Guest<T>>>(l, |guest| guest)?;
    poll::add_to_linker::<_, HasSelf<Guest<T>>>(l, |guest| guest)?;
    streams::add_to_linker::<_, HasSelf<Guest<T>>>(l, |guest| guest)?;
    random::random::add_to_linker::<_, HasSelf<Guest<T>>>(l, |guest| guest)?;
    random::insecure::add_to_linker::<_, HasSelf<Guest<T>>>(l, |guest| guest)?;
    random::insecure_seed::add_to_linker::<_, HasSelf<Guest<T>>>(l, |guest| guest)?;
    Ok(())
}

// The standard streams are handles without a resource behind them: all output goes to the log.

impl<T> cli::stdin::Host for Guest<T> {
    fn get_stdin(&mut self) -> wasmtime::Result<Resource<InputStream>> {
        Ok(Resource::new_own(0))
    }
}

impl<T> cli::stdout::Host for Guest<T> {
    fn get_stdout(&mut self) -> wasmtime::Result<Resource<OutputStream>> {
        Ok(Resource::new_own(1))
    }
}

impl<T> cli::stderr::Host for Guest<T> {
    fn get_stderr(&mut self) -> wasmtime::Result<Resource<OutputStream>> {
        Ok(Resource::new_own(STDERR))
    }
}

impl<T> streams::Host for Guest<T> {
    fn convert_stream_error(
        &mut self,
        error: StreamError,
    ) -> wasmtime::Result<streams::StreamError> {
        match error {
            StreamError::Closed => Ok(streams::StreamError::Closed),
            StreamError::LastOperationFailed(error) | StreamError::Trap(error) => Err(error),
        }
    }
}

impl<T> streams::HostInputStream for Guest<T> {
    fn read(&mut self, _: Resource<InputStream>, _: u64) -> StreamResult<Vec<u8>> {
        Err(StreamError::Closed)
    }

    fn blocking_read(&mut self, _: Resource<InputStream>, _: u64) -> StreamResult<Vec<u8>> {
        Err(StreamError::Closed)
    }

    fn skip(&mut self, _: Resource<InputStream>, _: u64) -> StreamResult<u64> {
        Err(StreamError::Closed)
    }

    fn blocking_skip(&mut self, _: Resource<InputStream>, _: u64) -> StreamResult<u64> {
        Err(StreamError::Closed)
    }

    fn subscribe(&mut self, _: Resource<InputStream>) -> wasmtime::Result<Resource<Pollable>> {
        Ok(Resource::new_own(0))
    }

    fn drop(&mut self, _: Resource<InputStream>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl<T> streams::HostOutputStream for Guest<T> {
    fn check_write(&mut self, _: Resource<OutputStream>) -> StreamResult<u64> {
        Ok(WRITE)
    }

    fn write(&mut self, stream: Resource<OutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        if stream.rep() == STDERR {
            self.output.print_error(&bytes);
        } else {
            self.output.print(&bytes);
        }
        Ok(())
    }

    fn blocking_write_and_flush(
        &mut self,
        stream: Resource<OutputStream>,
        bytes: Vec<u8>,
    ) -> StreamResult<()> {
        self.write(stream, bytes)
    }

    fn flush(&mut self, _: Resource<OutputStream>) -> StreamResult<()> {
        Ok(())
    }

    fn blocking_flush(&mut self, _: Resource<OutputStream>) -> StreamResult<()> {
        Ok(())
    }

    fn subscribe(&mut self, _: Resource<OutputStream>) -> wasmtime::Result<Resource<Pollable>> {
        Ok(Resource::new_own(0))
    }

    fn write_zeroes(&mut self, _: Resource<OutputStream>, _: u64) -> StreamResult<()> {
        Err(StreamError::Closed)
    }

    fn blocking_write_zeroes_and_flush(
        &mut self,
        _: Resource<OutputStream>,
        _: u64,
    ) -> StreamResult<()> {
        Err(StreamError::Closed)
    }

    fn splice(
        &mut self,
        _: Resource<OutputStream>,
        _: Resource<InputStream>,
        _: u64,
    ) -> StreamResult<u64> {
        Err(StreamError::Closed)
    }

    fn blocking_splice(
        &mut self,
        _: Resource<OutputStream>,
        _: Resource<InputStream>,
        _: u64,
    ) -> StreamResult<u64> {
        Err(StreamError::Closed)
    }

    fn drop(&mut self, _: Resource<OutputStream>) -> wasmtime::Result<()> {
        Ok(())
    }
}

// A guest may not wait, because its worker would wait with it.

impl<T> poll::Host for Guest<T> {
    fn poll(&mut self, _: Vec<Resource<Pollable>>) -> wasmtime::Result<Vec<u32>> {
        wasmtime::bail!("a component may not wait")
    }
}

impl<T> poll::HostPollable for Guest<T> {
    fn ready(&mut self, _: Resource<Pollable>) -> wasmtime::Result<bool> {
        Ok(true)
    }

    fn block(&mut self, _: Resource<Pollable>) -> wasmtime::Result<()> {
        wasmtime::bail!("a component may not wait or sleep")
    }

    fn drop(&mut self, _: Resource<Pollable>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl<T> io::error::Host for Guest<T> {}

impl<T> io::error::HostError for Guest<T> {
    fn to_debug_string(&mut self, _: Resource<io::error::Error>) -> wasmtime::Result<String> {
        Ok("closed".into())
    }

    fn drop(&mut self, _: Resource<io::error::Error>) -> wasmtime::Result<()> {
        Ok(())
    }
}

// Time stands still within a call.

impl<T> clocks::monotonic_clock::Host for Guest<T> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.now.saturating_mul(1000))
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(1000)
    }

    fn subscribe_instant(&mut self, _: u64) -> wasmtime::Result<Resource<Pollable>> {
        Ok(Resource::new_own(0))
    }

    fn subscribe_duration(&mut self, _: u64) -> wasmtime::Result<Resource<Pollable>> {
        Ok(Resource::new_own(0))
    }
}

impl<T> clocks::wall_clock::Host for Guest<T> {
    fn now(&mut self) -> wasmtime::Result<clocks::wall_clock::Datetime> {
        Ok(clocks::wall_clock::Datetime {
            seconds: self.now / 1_000_000,
            nanoseconds: u32::try_from(self.now % 1_000_000).unwrap_or(0) * 1000,
        })
    }

    fn resolution(&mut self) -> wasmtime::Result<clocks::wall_clock::Datetime> {
        Ok(clocks::wall_clock::Datetime {
            seconds: 0,
            nanoseconds: 1000,
        })
    }
}

impl<T> random::random::Host for Guest<T> {
    fn get_random_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        self.random_bytes(length)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.random_u64())
    }
}

impl<T> random::insecure::Host for Guest<T> {
    fn get_insecure_random_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        self.random_bytes(length)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(self.random_u64())
    }
}

impl<T> random::insecure_seed::Host for Guest<T> {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok((self.random_u64(), self.random_u64()))
    }
}
