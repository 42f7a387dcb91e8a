//! A file, or a named pipe, with the lines of the access log.

use std::ffi::OsString;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, OFlags, RenameFlags};
use rustix::io::Errno;

use super::output::{self, Next, Stopped};
use super::text::count;

/// How long a full file that cannot be renamed grows before that is tried again.
const RENAME_PAUSE: Duration = Duration::from_secs(60);

/// A file that lines are added to. When it is as large as it may be, it is renamed, and another one
/// begins.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    /// Largest size, in bytes.
    max_size: Option<u64>,
    /// Number of renamed files that are kept.
    max_files: u32,
    /// The file, while it is open.
    open: Option<Open>,
    /// The file whose last line is not complete, since it could not be written to its end.
    torn: Option<Identity>,
    /// When a file that could not be renamed is to be renamed again.
    rename_at: Option<Instant>,
}

/// Device and number of a file, which are the same by whatever path it is opened.
type Identity = (u64, u64);

#[derive(Debug)]
struct Open {
    file: File,
    identity: Identity,
    /// Whether it has a size, unlike a pipe.
    is_regular: bool,
}

impl LogFile {
    /// Opens the file at its end, and makes it if it is missing. A named pipe that no process reads
    /// is opened later.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn open(path: &Path, max_size: Option<u64>, max_files: u32) -> io::Result<Self> {
        let open = match open(path) {
            Ok(open) => Some(open),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NXIO) => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            path: path.to_owned(),
            max_size,
            max_files,
            open,
            torn: None,
            rename_at: None,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file again by its path. If that fails, such as in a folder that became read-only,
    /// the file that was open takes the lines that follow, as in nginx: they are found in the
    /// renamed one. A named pipe that no process reads is opened later. Returns whether the file
    /// was opened, or will be.
    pub(super) fn reopen(&mut self) -> bool {
        let error = match open(&self.path) {
            Ok(open) => {
                self.open = Some(open);
                return true;
            }
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NXIO) => {
                self.open = None;
                return true;
            }
            Err(error) => error,
        };
        let path = self.path.display();
        let lines = match self.open {
            Some(_) => "its lines go to the file that is open",
            None => "the next lines try to open it",
        };
        tracing::warn!("the access log {path} cannot be opened again, so {lines}: {error}");
        false
    }

    /// Writes lines, each with its end. While a pipe takes nothing, `wait` is called, and says
    /// whether to try again, or to open the file again and write there what is left. Returns how
    /// many lines were written, and why the others were not; the file is then opened again for the
    /// next lines.
    pub(super) fn write(
        &mut self,
        lines: &[u8],
        wait: &mut dyn FnMut() -> Next,
    ) -> (u64, io::Result<()>) {
        let mut written = 0;
        let mut left = lines;
        while !left.is_empty() {
            let result = self.write_some(left, wait);
            let (length, stopped) = match result {
                Ok(length) => (length, None),
                Err(stopped) => (stopped.written, Some(stopped)),
            };
            // A line that was written in part is written again as a whole, if writing goes on.
            let whole = match stopped {
                Some(_) => fitting(left, length),
                None => length,
            };
            let (done, rest) = left.split_at(whole.min(left.len()));
            written += count(done);
            left = rest;
            match stopped {
                Some(stopped) if stopped.reopens => {
                    self.reopen();
                }
                Some(stopped) => {
                    // The next lines are written to the file that is at its path then.
                    self.open = None;
                    return (written, Err(stopped.error));
                }
                None => {}
            }
        }
        (written, Ok(()))
    }

    /// Writes as many of the lines as one file takes, at least one. Returns their length, or what
    /// was written before an error.
    fn write_some(
        &mut self,
        lines: &[u8],
        wait: &mut dyn FnMut() -> Next,
    ) -> Result<usize, Stopped> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => open(&self.path).map_err(Stopped::before)?,
        };
        let mut length = lines.len();
        if let Some(max_size) = self.max_size.filter(|_| open.is_regular) {
            let size = open.file.metadata().map_err(Stopped::before)?.len();
            let room = usize::try_from(max_size.saturating_sub(size)).unwrap_or(usize::MAX);
            length = fitting(lines, room);
            if length == 0 && size > 0 {
                match self.rotate(&open) {
                    Some(new) => {
                        open = new;
                        let room = usize::try_from(max_size).unwrap_or(usize::MAX);
                        length = fitting(lines, room);
                    }
                    None => length = lines.len(),
                }
            }
            if length == 0 {
                // A line that is longer than a file may be has one of its own.
                let end = lines.iter().position(|byte| *byte == b'\n');
                length = end.map_or(lines.len(), |end| end + 1);
            }
        }
        let part = lines.get(..length).unwrap_or(lines);
        let mut is_torn = self.torn == Some(open.identity);
        let result = output::write(&mut open.file, part, &mut is_torn, wait);
        self.torn = is_torn.then_some(open.identity);
        self.open = Some(open);
        result?;
        Ok(part.len())
    }

    /// Renames the file, and begins another one. If that fails, the file goes on, and is renamed
    /// some time later.
    fn rotate(&mut self, full: &Open) -> Option<Open> {
        let now = Instant::now();
        if self.rename_at.is_some_and(|at| now < at) {
            return None;
        }
        match self.begin_another(full) {
            Ok(new) => {
                self.rename_at = None;
                Some(new)
            }
            Err(error) => {
                let path = self.path.display();
                let pause = RENAME_PAUSE.as_secs();
                tracing::warn!(
                    "the access log {path} is full and cannot be renamed; it grows on, and is \
                     renamed in {pause} seconds: {error}"
                );
                self.rename_at = Some(now + RENAME_PAUSE);
                None
            }
        }
    }

    fn begin_another(&self, full: &Open) -> io::Result<Open> {
        let present = std::fs::metadata(&self.path);
        // Another process, or the operator, may have renamed it already.
        if !present.is_ok_and(|present| identity(&present) == full.identity) {
            return open(&self.path);
        }
        // Only as many as have to make room, so that trying again moves no file out.
        let is_taken = |number: &u32| self.numbered(*number).exists();
        let taken = (1..self.max_files).take_while(is_taken).count();
        for number in (1..=u32::try_from(taken).unwrap_or(0)).rev() {
            let moved = std::fs::rename(self.numbered(number), self.numbered(number + 1));
            match moved {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(&self.path, self.numbered(1))?;
        open(&self.path).inspect_err(|_| {
            // The lines that follow are found where they are expected, unless another process has
            // made a file there.
            let renamed = self.numbered(1);
            let _ =
                rustix::fs::renameat_with(CWD, &renamed, CWD, &self.path, RenameFlags::NOREPLACE);
        })
    }

    /// The name of a renamed file; 1 is the newest.
    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = OsString::from(self.path.as_os_str());
        name.push(format!(".{number}"));
        name.into()
    }
}

/// The length of the lines that fit into this room.
fn fitting(lines: &[u8], room: usize) -> usize {
    if lines.len() <= room {
        return lines.len();
    }
    let start = lines.get(..room).unwrap_or(lines);
    start
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1)
}

fn open(path: &Path) -> io::Result<Open> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        // A named pipe that is not read would block the thread, and the end of the gateway with it.
        .custom_flags(nonblocking)
        .open(path)?;
    let metadata = file.metadata()?;
    let kind = metadata.file_type();
    if !kind.is_fifo() && !kind.is_char_device() {
        rustix::fs::fcntl_setfl(&file, OFlags::APPEND)?;
    }
    Ok(Open {
        is_regular: kind.is_file(),
        identity: identity(&metadata),
        file,
    })
}

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use std::io::Read;

    use proptest::prelude::*;

    use super::*;

    fn never() -> Next {
        Next::GiveUp
    }

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn a_full_file_is_renamed_between_two_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut file = LogFile::open(&path, Some(10), 2).unwrap();
        let lines = b"one\ntwo\nthree\nfour\nfive\nsix\nmore than ten bytes\nend\n";
        assert_eq!(file.write(lines, &mut never).0, 8);
        assert_eq!(read(&path), "end\n");
        assert_eq!(read(&file.numbered(1)), "more than ten bytes\n");
        assert_eq!(read(&file.numbered(2)), "six\n");
        assert!(!file.numbered(3).exists());
    }

    #[test]
    fn a_file_that_another_process_has_renamed_is_not_renamed_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut file = LogFile::open(&path, Some(10), 5).unwrap();
        file.write(b"12345678\n", &mut never).1.unwrap();
        std::fs::rename(&path, file.numbered(1)).unwrap();
        std::fs::write(&path, "other\n").unwrap();
        file.write(b"next\n", &mut never).1.unwrap();
        assert_eq!(read(&path), "other\nnext\n");
        assert_eq!(read(&file.numbered(1)), "12345678\n");
        assert!(!file.numbered(2).exists());
    }

    #[test]
    fn a_renamed_file_is_made_again_when_it_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut file = LogFile::open(&path, None, 5).unwrap();
        file.write(b"one\n", &mut never).1.unwrap();
        std::fs::rename(&path, folder.path().join("old")).unwrap();
        file.write(b"two\n", &mut never).1.unwrap();
        assert!(file.reopen());
        file.write(b"three\n", &mut never).1.unwrap();
        assert_eq!(read(&folder.path().join("old")), "one\ntwo\n");
        assert_eq!(read(&path), "three\n");
    }

    #[test]
    fn a_file_that_cannot_be_opened_again_takes_further_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut file = LogFile::open(&path, None, 5).unwrap();
        file.write(b"one\n", &mut never).1.unwrap();
        std::fs::rename(&path, folder.path().join("old")).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(!file.reopen());
        file.write(b"two\n", &mut never).1.unwrap();
        assert_eq!(read(&folder.path().join("old")), "one\ntwo\n");
        std::fs::remove_dir(&path).unwrap();
        assert!(file.reopen());
        file.write(b"three\n", &mut never).1.unwrap();
        assert_eq!(read(&path), "three\n");
    }

    #[test]
    fn a_pipe_that_takes_nothing_is_given_up_when_its_time_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let mut file = LogFile::open(&path, Some(10), 5).unwrap();
        let (written, result) = file.write(b"no reader\n", &mut never);
        assert_eq!((written, result.is_err()), (0, true));
        // The pipe is open for reading, and nothing reads it.
        let reader = OpenOptions::new().read(true).write(true).open(&path);
        let line = format!("{}\n", "x".repeat(999));
        let mut waits = 0;
        let (written, result) = file.write(line.repeat(1000).as_bytes(), &mut || {
            waits += 1;
            if waits < 3 { Next::Again } else { Next::GiveUp }
        });
        assert!(result.is_err());
        assert_eq!(waits, 3);
        assert!((1..1000).contains(&written), "{written}");
        drop(reader);
    }

    #[test]
    fn a_pipe_that_is_slow_loses_no_line_when_the_log_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let old = folder.path().join("old");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let reader = OpenOptions::new().read(true).write(true).open(&path);
        let mut reader = reader.unwrap();
        let mut file = LogFile::open(&path, None, 5).unwrap();
        let lines: String = (0..1000).map(|number| format!("{number:0999}\n")).collect();
        // First the pipe itself is opened again, then a file in its place.
        let mut waits = 0;
        let (written, result) = file.write(lines.as_bytes(), &mut || {
            waits += 1;
            match waits {
                1 => {
                    // Room for some lines more.
                    let mut read = [0; 9000];
                    reader.read_exact(&mut read).unwrap();
                }
                _ => std::fs::rename(&path, &old).unwrap(),
            }
            Next::Reopen
        });
        result.unwrap();
        assert_eq!((written, waits), (1000, 2));
        let new = read(&path);
        let first: usize = new.split_once('\n').unwrap().0.parse().unwrap();
        assert_eq!(new, lines[first * 1000..]);
        let mut piped = vec![0; 1 << 20];
        let length = reader.read(&mut piped).unwrap();
        let piped = String::from_utf8(piped[..length].to_vec()).unwrap();
        let whole: Vec<&str> = piped.lines().filter(|line| line.len() == 999).collect();
        let numbers = whole.iter().map(|line| line.parse::<usize>().unwrap());
        assert_eq!(numbers.collect::<Vec<_>>(), (9..first).collect::<Vec<_>>());
    }

    #[test]
    fn a_file_that_could_not_be_renamed_is_renamed_later_at_the_same_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut file = LogFile::open(&path, Some(10), 1).unwrap();
        let obstacle = file.numbered(1);
        std::fs::create_dir_all(obstacle.join("not empty")).unwrap();
        for line in ["12345678\n", "two\n", "three\n"] {
            file.write(line.as_bytes(), &mut never).1.unwrap();
        }
        assert_eq!(read(&path), "12345678\ntwo\nthree\n");
        std::fs::remove_dir_all(&obstacle).unwrap();
        file.write(b"four\n", &mut never).1.unwrap();
        assert!(!obstacle.exists());
        file.rename_at = Some(Instant::now());
        file.write(b"five\n12345678\nsix\n", &mut never).1.unwrap();
        assert_eq!(read(&obstacle), "12345678\n");
        assert_eq!(read(&path), "six\n");
    }

    #[test]
    fn trying_again_to_rename_moves_no_older_file_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut file = LogFile::open(&path, Some(5), 4).unwrap();
        file.write(b"new\n", &mut never).1.unwrap();
        // What a rename that failed midway leaves behind: `.1` is free already.
        std::fs::write(file.numbered(2), "two\n").unwrap();
        std::fs::write(file.numbered(3), "three\n").unwrap();
        file.write(b"next\n", &mut never).1.unwrap();
        let kept = [1, 2, 3].map(|number| read(&file.numbered(number)));
        assert_eq!(kept, ["new\n", "two\n", "three\n"]);
        assert_eq!(read(&path), "next\n");
    }

    #[test]
    fn a_full_disk_loses_lines_and_says_so() {
        let mut file = LogFile::open(Path::new("/dev/full"), Some(10), 5).unwrap();
        let (written, result) = file.write(b"one\ntwo\n", &mut never);
        assert_eq!(written, 0);
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    proptest! {
        #[test]
        fn no_line_is_lost_or_torn_by_renaming(
            lengths in proptest::collection::vec(0_usize..30, 1..40), max_size in 1_u64..60,
        ) {
            let folder = tempfile::tempdir()?;
            let path = folder.path().join("log");
            let mut file = LogFile::open(&path, Some(max_size), 100)?;
            let lines: String = lengths.iter().map(|length| "x".repeat(*length) + "\n").collect();
            prop_assert_eq!(file.write(lines.as_bytes(), &mut never).0, lengths.len() as u64);
            let mut all = String::new();
            for number in (1..=100).rev() {
                let part = read(&file.numbered(number));
                prop_assert!(part.is_empty() || part.ends_with('\n'));
                prop_assert!(part.len() as u64 <= max_size || part.matches('\n').count() == 1);
                all.push_str(&part);
            }
            all.push_str(&read(&path));
            prop_assert_eq!(all, lines);
        }
    }
}
