//! Events to bytes.

use foldhash::{HashMap, HashMapExt};

use super::{Answer, Asked, Event, Fact, Header, MAGIC, MAGIC_WITH_FACTS, Pick, Row, tag};

/// Picks whose outcome is still awaited at most; those before it are taken to have none.
const AWAITED: usize = 1 << 16;

/// Room that is made at once for what is written next, in bytes.
const USUAL: usize = 40 << 10;

/// Writes a trace. What is written is taken by [`Writer::take`], piece by piece.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    /// Bytes taken already.
    taken: usize,
    /// The time of the last pick.
    now: u64,
    /// The columns of the last pick: only what has changed is written.
    load: Vec<u32>,
    picks: u64,
    /// The number of each pick whose outcome is not known yet, by its random bits.
    awaited: HashMap<u64, (u64, u64)>,
}

impl Writer {
    /// Begins a trace with what it is of, the component, and what its first instance took over.
    pub fn new(header: &Header, component: &[u8], saved: &[u8]) -> Self {
        let magic = if header.facts {
            MAGIC_WITH_FACTS
        } else {
            MAGIC
        };
        let mut bytes = magic.to_vec();
        // A structure of plain values, which has a text.
        let header = serde_json::to_vec(header).unwrap_or_default();
        for piece in [header.as_slice(), component, saved] {
            part(&mut bytes, piece);
        }
        Self {
            bytes,
            taken: 0,
            now: 0,
            load: Vec::new(),
            picks: 0,
            awaited: HashMap::new(),
        }
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.taken + self.bytes.len()
    }

    /// Whether there is nothing, which is never so.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that were not taken yet.
    pub fn pending(&self) -> usize {
        self.bytes.len()
    }

    /// Takes back what was written after there were so many [pending](Writer::pending) bytes. What follows
    /// would not be understood: it is for the end of a trace.
    pub fn take_back(&mut self, pending: usize) {
        self.bytes.truncate(pending);
    }

    /// What was written since this was last called.
    pub fn take(&mut self) -> Vec<u8> {
        self.taken += self.bytes.len();
        // The next piece will be about as long, unless this one had the component.
        let next = Vec::with_capacity(self.bytes.len().min(USUAL));
        std::mem::replace(&mut self.bytes, next)
    }

    /// Writes any event.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Table { fresh, rows, heard } => {
                self.table(*fresh, rows.iter().copied(), heard);
            }
            Event::Pick(pick) => {
                let said = (pick.answer, pick.chosen);
                self.pick(pick, &pick.load, &pick.heard, said.0, said.1);
            }
            Event::Outcome {
                pick,
                status,
                latency,
            } => self.outcome_of(*pick, *status, *latency),
        }
    }

    /// An instance was told of a table.
    pub fn table(&mut self, fresh: bool, rows: impl ExactSizeIterator<Item = Row>, heard: &[u64]) {
        self.bytes.push(if fresh { tag::FRESH } else { tag::TABLE });
        varint(&mut self.bytes, rows.len() as u64);
        for row in rows {
            self.bytes.extend_from_slice(&row.id.to_le_bytes());
            varint(&mut self.bytes, row.weight.into());
        }
        self.heard(heard);
        self.load.clear();
    }

    /// A pick. Of `pick` itself only what was handed in is looked at, and the facts, so that nothing has to
    /// be copied into it. Only where the header says so there may be facts.
    pub fn pick(
        &mut self,
        pick: &Pick,
        load: &[u32],
        heard: &[u64],
        answer: Answer,
        chosen: Option<u32>,
    ) {
        let flags = u8::from(pick.affinity.is_some())
            | u8::from(pick.attempt > 0) << 1
            | u8::from(!load.is_empty()) << 2
            | u8::from(!heard.is_empty()) << 3
            | u8::from(!pick.facts.is_empty()) << 4;
        self.bytes.extend([tag::PICK, flags]);
        // Workers read their clocks apart from each other, so time may seem to go back.
        let passed = pick.now.wrapping_sub(self.now) as i64;
        varint(&mut self.bytes, zigzag(passed));
        self.now = pick.now;
        self.bytes.extend_from_slice(&pick.entropy.to_le_bytes());
        if let Some(affinity) = pick.affinity {
            self.bytes.extend_from_slice(&affinity.to_le_bytes());
        }
        if pick.attempt > 0 {
            varint(&mut self.bytes, pick.attempt.into());
        }
        if !load.is_empty() {
            self.columns(load);
        }
        if !heard.is_empty() {
            self.heard(heard);
        }
        if !pick.facts.is_empty() {
            varint(&mut self.bytes, pick.facts.len() as u64);
            pick.facts.iter().for_each(|fact| self.fact(fact));
        }
        let said = match answer {
            Answer::None => 0,
            Answer::Refused => 1,
            Answer::Position(position) => 2 + u64::from(position),
        };
        varint(&mut self.bytes, said);
        let chosen = chosen.map_or(0, |position| 1 + u64::from(position));
        varint(&mut self.bytes, chosen);
        if self.awaited.len() == AWAITED {
            self.awaited.clear();
        }
        let number = (self.picks, pick.now);
        self.awaited.insert(pick.entropy, number);
        self.picks += 1;
    }

    /// What came of the pick with these random bits, at a time on the clock of picks.
    pub fn outcome(&mut self, entropy: u64, status: u16, now: u64) {
        // One from before the trace, or too long ago, is left out.
        if let Some((pick, then)) = self.awaited.remove(&entropy) {
            self.outcome_of(pick, status, now.saturating_sub(then));
        }
    }

    fn outcome_of(&mut self, pick: u64, status: u16, latency: u64) {
        self.bytes.push(tag::OUTCOME);
        varint(&mut self.bytes, self.picks.saturating_sub(pick));
        varint(&mut self.bytes, status.into());
        varint(&mut self.bytes, latency);
    }

    /// The values that are others than last time, each after how many that are not.
    fn columns(&mut self, load: &[u32]) {
        if self.load.len() != load.len() {
            self.load.clear();
            self.load.resize(load.len(), 0);
        }
        let changed = self.load.iter().zip(load).filter(|(old, new)| old != new);
        varint(&mut self.bytes, load.len() as u64);
        varint(&mut self.bytes, changed.count() as u64);
        let mut same = 0;
        for (old, new) in self.load.iter_mut().zip(load) {
            if old == new {
                same += 1;
                continue;
            }
            varint(&mut self.bytes, same);
            varint(&mut self.bytes, (*new).into());
            *old = *new;
            same = 0;
        }
    }

    fn fact(&mut self, fact: &Fact) {
        match &fact.asked {
            Asked::Method => self.bytes.push(tag::METHOD),
            Asked::Path => self.bytes.push(tag::PATH),
            Asked::Query => self.bytes.push(tag::QUERY),
            Asked::Header(name) => {
                self.bytes.push(tag::HEADER);
                part(&mut self.bytes, name.as_bytes());
            }
            Asked::Client => self.bytes.push(tag::CLIENT),
            Asked::BodyStart(most) => {
                self.bytes.push(tag::BODY_START);
                varint(&mut self.bytes, (*most).into());
            }
        }
        match &fact.answer {
            None => self.bytes.push(0),
            Some(answer) => {
                self.bytes.push(1);
                part(&mut self.bytes, answer);
            }
        }
    }

    fn heard(&mut self, heard: &[u64]) {
        varint(&mut self.bytes, heard.len() as u64);
        for answer in heard {
            // All bits set stands for "no more", and is frequent.
            varint(&mut self.bytes, answer.wrapping_add(1));
        }
    }
}

/// Its length, and the bytes.
fn part(bytes: &mut Vec<u8>, part: &[u8]) {
    varint(bytes, part.len() as u64);
    bytes.extend_from_slice(part);
}

/// Seven bits a byte, the lowest first, the eighth says that there are more (LEB128).
fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Small numbers for small differences in either direction.
fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}
