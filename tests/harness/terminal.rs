//! A pseudo terminal.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, FromRawFd};
use std::process::Stdio;

use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

/// A terminal of which the test is the screen and the keyboard.
pub(crate) struct PseudoTerminal {
    /// The side of the test.
    own: File,
    /// The side of the program. It stays open, so that what was drawn can be read after its end.
    end: File,
}

impl PseudoTerminal {
    pub(crate) fn open(columns: u16, rows: u16) -> Self {
        let (mut own, mut end) = (-1, -1);
        // SAFETY: the pointers are to variables of the right type, and the others may be null.
        #[expect(unsafe_code, reason = "the standard library cannot open one")]
        let opened = unsafe {
            libc::openpty(
                &mut own,
                &mut end,
                std::ptr::null_mut(),
                std::ptr::null(),
                std::ptr::null(),
            )
        };
        assert_eq!(opened, 0, "{}", io::Error::last_os_error());
        // SAFETY: both were just opened, and have no other owner.
        #[expect(unsafe_code, reason = "openpty returns numbers")]
        let [own, end] = unsafe { [File::from_raw_fd(own), File::from_raw_fd(end)] };
        let terminal = Self { own, end };
        terminal.resize(columns, rows);
        terminal
    }

    /// The side of the program, as its standard input or output.
    pub(crate) fn end(&self) -> Stdio {
        self.end.try_clone().unwrap().into()
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(self.end.as_fd(), size).unwrap();
    }

    /// Whether the terminal shows what is typed, as it does for a shell.
    pub(crate) fn echoes(&self) -> bool {
        let modes = tcgetattr(self.end.as_fd()).unwrap().local_modes;
        modes.contains(LocalModes::ECHO | LocalModes::ICANON)
    }
}

impl Read for PseudoTerminal {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.own.read(into)
    }
}

impl Write for PseudoTerminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.own.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.own.flush()
    }
}
