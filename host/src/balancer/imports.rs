//! What a balancer may import besides WASI: the load of endpoints, the log, facts of the request of
//! the pick and its earlier tries, and facts of the endpoints of the table.

use std::sync::Arc;

use guest_sdk::json;
use wasmtime::Engine;
use wasmtime::component::{HasSelf, Linker};

use super::bindings::{
    body_facts, endpoint_facts, load, log, outcome_tag, refusal, request_facts, tries,
};
use super::body::BodyAnswer;
use super::columns::{Column, ColumnHandles, Interests};
use super::endpoint_facts::EndpointFacts;
use super::facts::{self, BODY_START};
use super::request::Refusal;
use crate::component::{add_wasi, level_of};
use crate::endpoint::{Changes, Endpoint};
use crate::trace::{BodyQuestion, EndpointQuestion};

/// The host's data of an instance of a balancer.
pub(super) type Guest = crate::component::Guest<LoadView>;

/// An instance's view of its endpoints.
pub(super) struct LoadView {
    /// The table that the guest was given.
    endpoints: Arc<[Arc<Endpoint>]>,
    /// The changes in it, once the guest has asked for them.
    changes: Option<Changes>,
    pub(super) answers: LoadAnswers,
    /// What it asks about endpoints.
    pub(super) facts: EndpointFacts,
    /// How it refuses the request of the pick, if it has said it.
    pub(super) refusal: Option<Refusal>,
    /// The tag that it has given to the pick; 0 for none.
    pub(super) tag: u64,
    /// The earlier tries of the request of the pick, while there is a pick.
    pub(super) tries: Option<EarlierTries>,
    /// The columns that the guest asks for are added here, so that they are observed.
    interests: Arc<Interests>,
    /// The numbers of the columns that the guest has asked for.
    handles: ColumnHandles,
}

/// The tries of a request before the one of the pick.
#[derive(Default)]
pub(super) struct EarlierTries {
    /// Status of the last response.
    pub(super) last_status: Option<u16>,
    /// The ids of endpoints that were tried, or that had no room.
    pub(super) tried: Vec<u64>,
}

/// Where the answers to a guest's questions about load and about tries come from, and whether they
/// are kept.
pub(super) enum LoadAnswers {
    /// From the endpoints.
    Live,
    /// From the endpoints; those of a call are kept for a recording.
    Recorded(Vec<u64>),
    /// From a trace.
    Replayed(std::vec::IntoIter<u64>),
}

impl LoadView {
    /// A view without endpoints.
    pub(super) fn new(answers: LoadAnswers, interests: Arc<Interests>) -> Self {
        Self {
            endpoints: Arc::new([]),
            changes: None,
            refusal: None,
            tag: 0,
            tries: None,
            facts: EndpointFacts::new(matches!(answers, LoadAnswers::Recorded(_))),
            answers,
            interests,
            handles: ColumnHandles::default(),
        }
    }

    /// Makes this the table that the guest's questions are about.
    pub(super) fn set_endpoints(&mut self, table: &Arc<[Arc<Endpoint>]>) {
        self.endpoints = Arc::clone(table);
        if self.changes.is_some() {
            self.changes = Some(Changes::new(Arc::clone(table)));
        }
    }

    /// Adds what the guest has asked for, and what it asks for from now on, to these.
    pub(super) fn report_to(&mut self, interests: &Arc<Interests>) {
        interests.absorb(&self.interests);
        self.interests = Arc::clone(interests);
    }
}

/// Links the interfaces that a balancer may import.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    add_wasi(&mut linker)?;
    load::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    log::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    request_facts::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    body_facts::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    endpoint_facts::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    refusal::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    tries::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    outcome_tag::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    Ok(linker)
}

/// The answer to a guest if nothing has changed.
const NO_CHANGE: u64 = u64::MAX;

/// The answer, as it is recorded, if there was no response.
const NO_STATUS: u64 = u64::MAX;

impl LoadView {
    fn column(&self, handle: u32) -> wasmtime::Result<&Column> {
        let column = self.handles.column(handle);
        column.ok_or_else(|| wasmtime::format_err!("{handle} is not the handle of a column"))
    }

    fn value(&self, now: u64, column: u32, position: u32) -> wasmtime::Result<u32> {
        Ok(self.column(column)?.value(self.endpoint(position)?, now))
    }

    fn endpoint(&self, position: u32) -> wasmtime::Result<&Arc<Endpoint>> {
        let endpoint = self.endpoints.get(position as usize);
        endpoint.ok_or_else(|| {
            let length = self.endpoints.len();
            wasmtime::format_err!("it looked at position {position} of a table of {length}")
        })
    }

    fn of_endpoint(&mut self, id: u64, asked: EndpointQuestion) -> Option<String> {
        self.facts.answer(&self.endpoints, id, asked)
    }

    fn change(&mut self) -> u64 {
        let endpoints = &self.endpoints;
        // Made only when asked for, so that only guests that use it pay for it.
        let changes = (self.changes).get_or_insert_with(|| Changes::new(Arc::clone(endpoints)));
        match changes.next() {
            Some((position, in_flight)) => u64::from(position) << 32 | u64::from(in_flight),
            None => NO_CHANGE,
        }
    }

    /// Two columns for some positions: `low` in the low 32 bits, and `high` in the high 32 bits.
    fn pairs<const N: usize>(
        &mut self,
        now: u64,
        [low, high]: [u32; 2],
        positions: [u32; N],
    ) -> wasmtime::Result<[u64; N]> {
        let mut pairs = [0; N];
        for (pair, position) in pairs.iter_mut().zip(positions) {
            *pair = self.answer(|load| {
                let endpoint = load.endpoint(position)?;
                let [low, high] = [load.column(low)?, load.column(high)?];
                let [low, high] = [low, high].map(|column| column.value(endpoint, now));
                Ok(u64::from(high) << 32 | u64::from(low))
            })?;
        }
        Ok(pairs)
    }

    /// An answer to a question about load or tries: the live one, which is recorded if a recording
    /// is running; or the one of the trace.
    fn answer(
        &mut self,
        live: impl FnOnce(&mut Self) -> wasmtime::Result<u64>,
    ) -> wasmtime::Result<u64> {
        if let LoadAnswers::Replayed(answers) = &mut self.answers {
            let answer = answers.next();
            let more = "in this call it asks about load or tries more often than in the recording";
            return answer.ok_or_else(|| wasmtime::Error::msg(more));
        }
        let answer = live(self)?;
        if let LoadAnswers::Recorded(answers) = &mut self.answers {
            answers.push(answer);
        }
        Ok(answer)
    }
}

impl load::Host for Guest {
    fn read(&mut self, column: String) -> wasmtime::Result<Option<u32>> {
        let Some(column) = Column::named(&column) else {
            return Ok(None);
        };
        let observed = column.source();
        // Not recorded, since the number depends only on what was asked before. Whether there is
        // one may differ in a replay: another version may fill other columns, and names may all be
        // in use.
        let handle = self.own.handles.of(column);
        if handle.is_some()
            && let Some(observed) = observed
        {
            self.own.interests.add(observed);
        }
        Ok(handle)
    }

    fn at(&mut self, column: u32, position: u32) -> wasmtime::Result<u32> {
        let now = self.now;
        let value = (self.own).answer(|load| load.value(now, column, position).map(u64::from))?;
        Ok(value as u32)
    }

    fn at_two(
        &mut self,
        low: u32,
        high: u32,
        first: u32,
        second: u32,
    ) -> wasmtime::Result<(u64, u64)> {
        let pairs = (self.own).pairs(self.now, [low, high], [first, second])?;
        Ok(pairs.into())
    }

    fn at_eight(
        &mut self,
        low: u32,
        high: u32,
        a: u32,
        b: u32,
        c: u32,
        d: u32,
        e: u32,
        f: u32,
        g: u32,
        h: u32,
    ) -> wasmtime::Result<(u64, u64, u64, u64, u64, u64, u64, u64)> {
        let positions = [a, b, c, d, e, f, g, h];
        Ok((self.own).pairs(self.now, [low, high], positions)?.into())
    }

    fn changes(&mut self) -> wasmtime::Result<(u64, u64, u64, u64)> {
        // Mostly there is no change, and then the host does not look three more times.
        let mut last = 0;
        let mut next = || {
            self.own.answer(|load| {
                if last != NO_CHANGE {
                    last = load.change();
                }
                Ok(last)
            })
        };
        Ok((next()?, next()?, next()?, next()?))
    }
}

impl log::Host for Guest {
    fn log(&mut self, level: u8, message: String) -> wasmtime::Result<()> {
        self.output.say(level_of(level), &message);
        Ok(())
    }
}

impl request_facts::Host for Guest {
    fn method(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(facts::read(|facts| Some(facts.method()?.into_owned())).flatten())
    }

    fn path(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(facts::read(|facts| Some(facts.path()?.into_owned())).flatten())
    }

    fn query(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(facts::read(|facts| Some(facts.query()?.into_owned())).flatten())
    }

    fn header(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        Ok(facts::read(|facts| Some(facts.header(&name)?.into_owned())).flatten())
    }

    fn client(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(facts::read(|facts| Some(facts.client()?.into_owned())).flatten())
    }

    fn body_start(&mut self, most: u32) -> wasmtime::Result<Option<Vec<u8>>> {
        let most = BODY_START.min(most as usize);
        Ok(facts::read(|facts| Some(facts.body_start(most)?.into_owned())).flatten())
    }
}

impl LoadView {
    fn of_body(&self, question: BodyQuestion) -> Option<BodyAnswer> {
        let answer = facts::read(|facts| {
            self.interests.note_question(&question);
            facts.of_body(&question)
        });
        answer.flatten()
    }

    fn length_in_body(&self, question: BodyQuestion) -> Option<(u64, bool)> {
        match self.of_body(question)? {
            BodyAnswer::Length(length, is_cut) => Some((length, is_cut)),
            BodyAnswer::Text(_) | BodyAnswer::Hashes(_) => None,
        }
    }
}

impl body_facts::Host for Guest {
    fn length(&mut self) -> wasmtime::Result<Option<(u64, bool)>> {
        Ok(self.own.length_in_body(BodyQuestion::Length))
    }

    fn json_field(&mut self, pointer: String, most: u32) -> wasmtime::Result<Option<String>> {
        // The gateway keeps what is asked, and its memory is not the plugin's.
        if pointer.len() > json::MAX_POINTER {
            return Ok(None);
        }
        let question = BodyQuestion::JsonField { pointer, most };
        Ok(match self.own.of_body(question) {
            Some(BodyAnswer::Text(text)) => Some(text),
            _ => None,
        })
    }

    fn prompt_length(&mut self) -> wasmtime::Result<Option<(u64, bool)>> {
        Ok(self.own.length_in_body(BodyQuestion::PromptLength))
    }

    fn prefix_hashes(&mut self, block: u32, most: u32) -> wasmtime::Result<Option<Vec<u64>>> {
        let question = BodyQuestion::PrefixHashes { block, most };
        Ok(match self.own.of_body(question) {
            Some(BodyAnswer::Hashes(hashes)) => Some(hashes.to_vec()),
            _ => None,
        })
    }
}

impl endpoint_facts::Host for Guest {
    fn label(&mut self, endpoint: u64, key: String) -> wasmtime::Result<Option<String>> {
        Ok(self.own.of_endpoint(endpoint, EndpointQuestion::Label(key)))
    }

    fn host(&mut self, endpoint: u64) -> wasmtime::Result<Option<String>> {
        Ok(self.own.of_endpoint(endpoint, EndpointQuestion::Host))
    }

    fn address(&mut self, endpoint: u64) -> wasmtime::Result<Option<String>> {
        Ok(self.own.of_endpoint(endpoint, EndpointQuestion::Address))
    }
}

impl refusal::Host for Guest {
    fn refuse_with(&mut self, status: u16, retry_after: Option<u32>) -> wasmtime::Result<()> {
        if !(400..=599).contains(&status) {
            wasmtime::bail!("it refuses with the status {status}, which is not from 400 to 599");
        }
        self.own.refusal = Some(Refusal {
            status,
            retry_after,
        });
        Ok(())
    }
}

impl outcome_tag::Host for Guest {
    fn tag(&mut self, tag: u64) -> wasmtime::Result<()> {
        self.own.tag = tag;
        Ok(())
    }
}

impl tries::Host for Guest {
    fn last_status(&mut self) -> wasmtime::Result<Option<u16>> {
        let Some(tries) = &self.own.tries else {
            return Ok(None);
        };
        let status = tries.last_status.map_or(NO_STATUS, u64::from);
        Ok(u16::try_from(self.own.answer(|_| Ok(status))?).ok())
    }

    fn was_tried(&mut self, position: u32) -> wasmtime::Result<bool> {
        let id = self.own.endpoint(position)?.id;
        let Some(tries) = &self.own.tries else {
            return Ok(false);
        };
        let was_tried = tries.tried.contains(&id).into();
        Ok(self.own.answer(|_| Ok(was_tried))? != 0)
    }
}
