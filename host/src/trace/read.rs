//! Decodes a trace.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use thiserror::Error;

use super::{
    BalancerAnswer, BodyQuestion, EndReason, EndedTry, EndpointFact, EndpointQuestion, Event, Fact,
    Header, MAGIC, MAGIC_OF_1_4, MAGIC_WITH_FACTS, Pick, RequestQuestion, Row, tag,
};

/// Most endpoints of a table, and most values of a pick, that are accepted as valid.
const MAX_ITEMS: u64 = 1 << 24;

/// The field of the header that all traces have but the oldest.
const READS_FACTS: &str = "reads_facts";

/// Why a trace cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// It does not start as a trace does.
    #[error("this is not a trace of pointsman, or one of another version")]
    Foreign,
    /// It is cut off.
    #[error("the trace is cut off at byte {0}")]
    Cut(usize),
    /// It has an impossible value.
    #[error("the trace is damaged at byte {0}")]
    Damaged(usize),
}

/// Reads a trace.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    now: u64,
    load: Vec<u32>,
    picks: u64,
    /// The description of the recording.
    pub header: Header,
    /// The component.
    pub component: &'a [u8],
    /// The state that the first instance restored; empty if none.
    pub saved: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads the start of a trace.
    ///
    /// # Errors
    /// If it is not a trace.
    pub fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        let facts = bytes.starts_with(MAGIC_WITH_FACTS);
        let contract_1_4 = bytes.starts_with(MAGIC_OF_1_4);
        if !facts && !contract_1_4 && !bytes.starts_with(MAGIC) {
            return Err(Error::Foreign);
        }
        let mut reader = Self {
            bytes,
            at: MAGIC.len(),
            now: 0,
            load: Vec::new(),
            picks: 0,
            header: Header {
                upstream: String::new(),
                balancer: String::new(),
                digest: String::new(),
                config: String::new(),
                started: 0.0,
                gateway: String::new(),
                reads_facts: false,
                facts,
                contract_1_4,
            },
            component: &[],
            saved: &[],
        };
        let header = reader.part()?;
        reader.component = reader.part()?;
        let damaged = |_| Error::Damaged(MAGIC.len());
        let named: BTreeMap<&str, IgnoredAny> = serde_json::from_slice(header).map_err(damaged)?;
        // Before version 1.2 of the contract there was neither state nor a question about requests.
        if named.contains_key(READS_FACTS) {
            reader.saved = reader.part()?;
        }
        reader.header = serde_json::from_slice(header).map_err(damaged)?;
        // A trace of 1.4 can be with or without facts, and its header says it.
        reader.header.facts = facts || (contract_1_4 && reader.header.facts);
        reader.header.contract_1_4 = contract_1_4;
        Ok(reader)
    }

    /// The next event; none at the end.
    ///
    /// # Errors
    /// If the next bytes are not an event.
    pub fn event(&mut self) -> Result<Option<Event>, Error> {
        let Some(&(mut tag)) = self.bytes.get(self.at) else {
            return Ok(None);
        };
        let start = self.at;
        self.at += 1;
        let mut endpoint_facts = Vec::new();
        if tag == tag::ENDPOINT_FACTS && self.header.contract_1_4 {
            let facts = (0..self.count()?).map(|_| self.endpoint_fact());
            endpoint_facts = facts.collect::<Result<_, _>>()?;
            tag = self.byte()?;
            if !matches!(tag, tag::TABLE | tag::FRESH) {
                return Err(Error::Damaged(start));
            }
        }
        let event = match tag {
            tag::TABLE | tag::FRESH => {
                let rows = (0..self.count()?).map(|_| self.row());
                let rows = rows.collect::<Result<_, _>>()?;
                self.load.clear();
                Event::Table {
                    fresh: tag == tag::FRESH,
                    rows,
                    load_answers: self.load_answers()?,
                    facts: endpoint_facts,
                }
            }
            tag::PICK => Event::Pick(self.pick()?),
            tag::ENDED if self.header.contract_1_4 => self.ended()?,
            tag::OUTCOME => {
                let back = self.varint()?;
                let pick = self.picks.checked_sub(back);
                Event::Outcome {
                    pick: pick.ok_or(Error::Damaged(start))?,
                    status: u16::try_from(self.varint()?).map_err(|_| Error::Damaged(start))?,
                    latency: self.varint()?,
                }
            }
            _ => return Err(Error::Damaged(start)),
        };
        Ok(Some(event))
    }

    fn ended(&mut self) -> Result<Event, Error> {
        let start = self.at;
        let flags = self.byte()?;
        if flags & 0xf0 != 0 {
            return Err(Error::Damaged(start));
        }
        let now = self.time()?;
        let (endpoint, tag) = (self.u64()?, self.varint()?);
        let mut option = |bit: u8| (flags & bit != 0).then(|| self.varint()).transpose();
        let (status, retry_after, first_byte) = (option(1)?, option(2)?, option(4)?);
        let damaged = |_| Error::Damaged(start);
        let ended = EndedTry {
            endpoint,
            tag,
            now,
            status: status.map(u16::try_from).transpose().map_err(damaged)?,
            retry_after: retry_after
                .map(u32::try_from)
                .transpose()
                .map_err(damaged)?,
            first_byte,
            took: self.varint()?,
            bytes: self.varint()?,
            why: *(EndReason::ALL.get(self.count()?)).ok_or(Error::Damaged(start))?,
        };
        let load_answers = match flags & 8 {
            0 => Vec::new(),
            _ => self.load_answers()?,
        };
        Ok(Event::Ended {
            ended,
            load_answers,
        })
    }

    fn time(&mut self) -> Result<u64, Error> {
        let passed = unzigzag(self.varint()?);
        self.now = self.now.wrapping_add(passed as u64);
        Ok(self.now)
    }

    fn pick(&mut self) -> Result<Pick, Error> {
        let flags = self.byte()?;
        let now = self.time()?;
        let entropy = self.u64()?;
        let affinity = (flags & 1 != 0).then(|| self.u64()).transpose()?;
        let attempt = match flags & 2 {
            0 => 0,
            _ => self.u32()?,
        };
        if flags & 4 != 0 {
            self.columns()?;
        }
        let load_answers = match flags & 8 {
            0 => Vec::new(),
            _ => self.load_answers()?,
        };
        let facts = match flags & 16 {
            0 => Vec::new(),
            _ => self.facts()?,
        };
        let start = self.at;
        let answer = match self.varint()? {
            0 => BalancerAnswer::None,
            1 => BalancerAnswer::Refused,
            more => BalancerAnswer::Position(
                u32::try_from(more - 2).map_err(|_| Error::Damaged(start))?,
            ),
        };
        let is_new = self.header.contract_1_4;
        let answer = match (flags & 96, answer) {
            (0, answer) => answer,
            (32, BalancerAnswer::Position(position)) if is_new => BalancerAnswer::Weighted {
                position,
                first_byte: self.u32()?,
                rest: self.u32()?,
            },
            (64, BalancerAnswer::Refused) if is_new => {
                let damaged = |_| Error::Damaged(start);
                let status = u16::try_from(self.varint()?).map_err(damaged)?;
                let seconds = self.varint()?.checked_sub(1).map(u32::try_from);
                BalancerAnswer::RefusedWith {
                    status,
                    retry_after: seconds.transpose().map_err(damaged)?,
                }
            }
            _ => return Err(Error::Damaged(start)),
        };
        let tag = match flags & 128 {
            0 => 0,
            _ if is_new => self.varint()?,
            _ => return Err(Error::Damaged(start)),
        };
        let chosen = self.varint()?.checked_sub(1).map(u32::try_from);
        self.picks += 1;
        Ok(Pick {
            now,
            entropy,
            affinity,
            attempt,
            load: match flags & 4 {
                0 => Vec::new(),
                _ => self.load.clone(),
            },
            load_answers,
            facts,
            answer,
            tag,
            chosen: chosen.transpose().map_err(|_| Error::Damaged(start))?,
        })
    }

    fn row(&mut self) -> Result<Row, Error> {
        Ok(Row {
            id: self.u64()?,
            weight: self.u32()?,
        })
    }

    fn columns(&mut self) -> Result<(), Error> {
        let length = self.count()?;
        if self.load.len() != length {
            self.load.clear();
            self.load.resize(length, 0);
        }
        let mut position = 0;
        for _ in 0..self.count()? {
            let start = self.at;
            position += self.count()?;
            let value = self.u32()?;
            *(self.load.get_mut(position)).ok_or(Error::Damaged(start))? = value;
            position += 1;
        }
        Ok(())
    }

    fn load_answers(&mut self) -> Result<Vec<u64>, Error> {
        let count = self.count()?;
        (0..count)
            .map(|_| Ok(self.varint()?.wrapping_sub(1)))
            .collect()
    }

    fn facts(&mut self) -> Result<Vec<Fact>, Error> {
        let start = self.at;
        if !self.header.facts {
            return Err(Error::Damaged(start));
        }
        (0..self.count()?).map(|_| self.fact()).collect()
    }

    fn fact(&mut self) -> Result<Fact, Error> {
        let start = self.at;
        let damaged = || Error::Damaged(start);
        let asked = match self.byte()? {
            tag::METHOD => RequestQuestion::Method,
            tag::PATH => RequestQuestion::Path,
            tag::QUERY => RequestQuestion::Query,
            tag::HEADER => RequestQuestion::Header(self.text()?),
            tag::CLIENT => RequestQuestion::Client,
            tag::BODY_START => RequestQuestion::BodyStart(self.u32()?),
            body if self.header.contract_1_4 => {
                RequestQuestion::Body(self.body_question(body)?.ok_or_else(damaged)?)
            }
            _ => return Err(damaged()),
        };
        let answer = match self.byte()? {
            0 => None,
            1 => Some(self.part()?.to_vec()),
            _ => return Err(damaged()),
        };
        Ok(Fact { asked, answer })
    }

    /// The question about a body that has this tag; none if the tag is unknown.
    fn body_question(&mut self, tag: u8) -> Result<Option<BodyQuestion>, Error> {
        Ok(Some(match tag {
            tag::BODY_LENGTH => BodyQuestion::Length,
            tag::PROMPT_LENGTH => BodyQuestion::PromptLength,
            tag::JSON_FIELD => BodyQuestion::JsonField {
                pointer: self.text()?,
                most: self.u32()?,
            },
            tag::PREFIX_HASHES => BodyQuestion::PrefixHashes {
                block: self.u32()?,
                most: self.u32()?,
            },
            _ => return Ok(None),
        }))
    }

    fn endpoint_fact(&mut self) -> Result<EndpointFact, Error> {
        let position = self.u32()?;
        let start = self.at;
        let asked = match self.byte()? {
            tag::LABEL => EndpointQuestion::Label(self.text()?),
            tag::HOST => EndpointQuestion::Host,
            tag::ADDRESS => EndpointQuestion::Address,
            _ => return Err(Error::Damaged(start)),
        };
        Ok(EndpointFact {
            position,
            asked,
            answer: self.text()?,
        })
    }

    fn text(&mut self) -> Result<String, Error> {
        let start = self.at;
        let bytes = self.part()?.to_vec();
        String::from_utf8(bytes).map_err(|_| Error::Damaged(start))
    }

    fn part(&mut self) -> Result<&'a [u8], Error> {
        let length = self.count()?;
        self.take(length)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..length).ok_or(Error::Cut(self.at))?;
        self.at += length;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Error> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u64(&mut self) -> Result<u64, Error> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.take(8)?);
        Ok(u64::from_le_bytes(bytes))
    }

    fn u32(&mut self) -> Result<u32, Error> {
        let start = self.at;
        u32::try_from(self.varint()?).map_err(|_| Error::Damaged(start))
    }

    /// The number of items that follow, limited so that memory can safely be reserved for them.
    fn count(&mut self) -> Result<usize, Error> {
        let start = self.at;
        match self.varint()? {
            count if count <= MAX_ITEMS => Ok(count as usize),
            _ => Err(Error::Damaged(start)),
        }
    }

    fn varint(&mut self) -> Result<u64, Error> {
        let start = self.at;
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error::Damaged(start))
    }
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
