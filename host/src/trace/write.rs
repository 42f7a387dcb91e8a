//! Encodes a trace.

use foldhash::{HashMap, HashMapExt};

use super::{
    BalancerAnswer, BodyQuestion, EndedTry, EndpointFact, EndpointQuestion, Event, Fact, Header,
    MAGIC, MAGIC_OF_1_4, MAGIC_WITH_FACTS, Pick, RequestQuestion, Row, tag,
};

/// Most picks whose outcome is awaited. When there are more, the older ones are taken to have none.
const AWAITED: usize = 1 << 16;

/// Most memory that is reserved in advance for the next piece, in bytes.
const USUAL: usize = 40 << 10;

/// Writes a trace. [`Writer::take`] returns what was written, piece by piece.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    /// Bytes taken already.
    taken: usize,
    /// The time of the last event that has one.
    now: u64,
    /// The columns of the last pick: only what has changed is written.
    load: Vec<u32>,
    picks: u64,
    /// The number of each pick whose outcome is not known yet, by its random bits.
    awaited: HashMap<u64, (u64, u64)>,
}

impl Writer {
    /// Starts a trace with its description, the component, and the state that the first instance
    /// restored.
    pub fn new(header: &Header, component: &[u8], saved: &[u8]) -> Self {
        let magic = match (header.contract_1_4, header.facts) {
            (true, _) => MAGIC_OF_1_4,
            (false, true) => MAGIC_WITH_FACTS,
            (false, false) => MAGIC,
        };
        let mut bytes = magic.to_vec();
        // Plain values can always be written as JSON.
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

    /// Whether nothing was written, which is never the case.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes not taken yet.
    pub fn pending(&self) -> usize {
        self.bytes.len()
    }

    /// Removes what was written after there were this many [pending](Writer::pending) bytes.
    /// Nothing may be written after that, because it could not be decoded: use it at the end of a
    /// trace only.
    pub fn take_back(&mut self, pending: usize) {
        self.bytes.truncate(pending);
    }

    /// Returns what was written since the last call.
    pub fn take(&mut self) -> Vec<u8> {
        self.taken += self.bytes.len();
        // The next piece will have about the same length, unless this one had the component.
        let next = Vec::with_capacity(self.bytes.len().min(USUAL));
        std::mem::replace(&mut self.bytes, next)
    }

    /// Writes any event.
    pub fn event(&mut self, event: &Event) {
        match event {
            Event::Table {
                fresh,
                rows,
                load_answers,
                facts,
            } => self.table(*fresh, rows.iter().copied(), load_answers, facts),
            Event::Pick(pick) => {
                let (answer, chosen) = (pick.answer, pick.chosen);
                self.pick(pick, &pick.load, &pick.load_answers, answer, chosen);
            }
            Event::Ended {
                ended,
                load_answers,
            } => self.ended(ended, load_answers),
            Event::Outcome {
                pick,
                status,
                latency,
            } => self.outcome_of(*pick, *status, *latency),
        }
    }

    /// Writes that an instance received a table. There may be facts only if the header says that
    /// the trace may have what version 1.4 of the contract has added.
    pub fn table(
        &mut self,
        fresh: bool,
        rows: impl ExactSizeIterator<Item = Row>,
        load_answers: &[u64],
        facts: &[EndpointFact],
    ) {
        if !facts.is_empty() {
            self.bytes.push(tag::ENDPOINT_FACTS);
            varint(&mut self.bytes, facts.len() as u64);
            facts.iter().for_each(|fact| self.endpoint_fact(fact));
        }
        self.bytes.push(if fresh { tag::FRESH } else { tag::TABLE });
        varint(&mut self.bytes, rows.len() as u64);
        for row in rows {
            self.bytes.extend_from_slice(&row.id.to_le_bytes());
            varint(&mut self.bytes, row.weight.into());
        }
        self.load_answers(load_answers);
        self.load.clear();
    }

    /// Writes that an instance was told of a try that has ended. It may be called only if the
    /// header says that the trace may have what version 1.4 of the contract has added.
    pub fn ended(&mut self, ended: &EndedTry, load_answers: &[u64]) {
        let flags = u8::from(ended.status.is_some())
            | u8::from(ended.retry_after.is_some()) << 1
            | u8::from(ended.first_byte.is_some()) << 2
            | u8::from(!load_answers.is_empty()) << 3;
        self.bytes.extend([tag::ENDED, flags]);
        self.time(ended.now);
        self.bytes.extend_from_slice(&ended.endpoint.to_le_bytes());
        varint(&mut self.bytes, ended.tag);
        let options = [
            ended.status.map(u64::from),
            ended.retry_after.map(u64::from),
            ended.first_byte,
        ];
        for value in options.into_iter().flatten() {
            varint(&mut self.bytes, value);
        }
        varint(&mut self.bytes, ended.took);
        varint(&mut self.bytes, ended.bytes);
        // In the order of `EndReason::ALL`.
        varint(&mut self.bytes, ended.why as u64);
        if !load_answers.is_empty() {
            self.load_answers(load_answers);
        }
    }

    /// Writes a time as its difference from the one before. Each worker reads the clock for itself,
    /// so time may seem to go backwards.
    fn time(&mut self, now: u64) {
        let passed = now.wrapping_sub(self.now) as i64;
        varint(&mut self.bytes, zigzag(passed));
        self.now = now;
    }

    /// Writes a pick. `load`, `load_answers`, `answer` and `chosen` are passed beside `pick`, whose
    /// own fields of these are ignored, so that nothing has to be copied into it. There may be
    /// facts only if the header says so.
    pub fn pick(
        &mut self,
        pick: &Pick,
        load: &[u32],
        load_answers: &[u64],
        answer: BalancerAnswer,
        chosen: Option<u32>,
    ) {
        let flags = u8::from(pick.affinity.is_some())
            | u8::from(pick.attempt > 0) << 1
            | u8::from(!load.is_empty()) << 2
            | u8::from(!load_answers.is_empty()) << 3
            | u8::from(!pick.facts.is_empty()) << 4
            | u8::from(matches!(answer, BalancerAnswer::Weighted { .. })) << 5
            | u8::from(matches!(answer, BalancerAnswer::RefusedWith { .. })) << 6
            | u8::from(pick.tag != 0) << 7;
        self.bytes.extend([tag::PICK, flags]);
        self.time(pick.now);
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
        if !load_answers.is_empty() {
            self.load_answers(load_answers);
        }
        if !pick.facts.is_empty() {
            varint(&mut self.bytes, pick.facts.len() as u64);
            pick.facts.iter().for_each(|fact| self.fact(fact));
        }
        let code = match answer {
            BalancerAnswer::None => 0,
            BalancerAnswer::Refused | BalancerAnswer::RefusedWith { .. } => 1,
            BalancerAnswer::Position(position) | BalancerAnswer::Weighted { position, .. } => {
                2 + u64::from(position)
            }
        };
        varint(&mut self.bytes, code);
        if let BalancerAnswer::RefusedWith {
            status,
            retry_after,
        } = answer
        {
            varint(&mut self.bytes, status.into());
            let seconds = retry_after.map_or(0, |seconds| 1 + u64::from(seconds));
            varint(&mut self.bytes, seconds);
        }
        if let BalancerAnswer::Weighted {
            first_byte, rest, ..
        } = answer
        {
            varint(&mut self.bytes, first_byte.into());
            varint(&mut self.bytes, rest.into());
        }
        if pick.tag != 0 {
            varint(&mut self.bytes, pick.tag);
        }
        let chosen = chosen.map_or(0, |position| 1 + u64::from(position));
        varint(&mut self.bytes, chosen);
        if self.awaited.len() == AWAITED {
            self.awaited.clear();
        }
        let number = (self.picks, pick.now);
        self.awaited.insert(pick.entropy, number);
        self.picks += 1;
    }

    /// Writes the outcome of the pick with these random bits; `now` is on the clock of picks.
    pub fn outcome(&mut self, entropy: u64, status: u16, now: u64) {
        // The outcome of a pick from before the trace, or too long ago, is left out.
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

    /// Writes the values that have changed since they were last written, each after the number of
    /// unchanged ones before it.
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
            RequestQuestion::Method => self.bytes.push(tag::METHOD),
            RequestQuestion::Path => self.bytes.push(tag::PATH),
            RequestQuestion::Query => self.bytes.push(tag::QUERY),
            RequestQuestion::Header(name) => {
                self.bytes.push(tag::HEADER);
                part(&mut self.bytes, name.as_bytes());
            }
            RequestQuestion::Client => self.bytes.push(tag::CLIENT),
            RequestQuestion::Body(question) => self.body_question(question),
            RequestQuestion::BodyStart(most) => {
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

    fn body_question(&mut self, question: &BodyQuestion) {
        match question {
            BodyQuestion::Length => self.bytes.push(tag::BODY_LENGTH),
            BodyQuestion::PromptLength => self.bytes.push(tag::PROMPT_LENGTH),
            BodyQuestion::JsonField { pointer, most } => {
                self.bytes.push(tag::JSON_FIELD);
                part(&mut self.bytes, pointer.as_bytes());
                varint(&mut self.bytes, (*most).into());
            }
            BodyQuestion::PrefixHashes { block, most } => {
                self.bytes.push(tag::PREFIX_HASHES);
                varint(&mut self.bytes, (*block).into());
                varint(&mut self.bytes, (*most).into());
            }
        }
    }

    fn endpoint_fact(&mut self, fact: &EndpointFact) {
        varint(&mut self.bytes, fact.position.into());
        match &fact.asked {
            EndpointQuestion::Label(key) => {
                self.bytes.push(tag::LABEL);
                part(&mut self.bytes, key.as_bytes());
            }
            EndpointQuestion::Host => self.bytes.push(tag::HOST),
            EndpointQuestion::Address => self.bytes.push(tag::ADDRESS),
        }
        part(&mut self.bytes, fact.answer.as_bytes());
    }

    fn load_answers(&mut self, load_answers: &[u64]) {
        varint(&mut self.bytes, load_answers.len() as u64);
        for answer in load_answers {
            // All bits set means "no more" and is frequent.
            varint(&mut self.bytes, answer.wrapping_add(1));
        }
    }
}

/// Writes the length of a part, and the part.
fn part(bytes: &mut Vec<u8>, part: &[u8]) {
    varint(bytes, part.len() as u64);
    bytes.extend_from_slice(part);
}

/// Seven bits a byte, the lowest first; the eighth bit says that more bytes follow (LEB128).
fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Maps small differences in either direction to small numbers.
fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}
