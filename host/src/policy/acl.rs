//! `acl`: lets consumers of some groups in, or keeps them out. Source: Kong 3.9, `acl`.

use std::sync::Arc;

use http::StatusCode;
use http::header::HeaderValue;

use super::answer::Answer;
use super::auth::{AUTHENTICATED_GROUPS, CONSUMER_GROUPS};
use super::request::Request;
use super::{Access, DryRun, Policy};
use crate::entity::plugin::acl::Config;

/// Decides by groups.
#[derive(Debug)]
pub(super) struct Acl(Config);

/// The groups of a request, and who has found them.
struct Groups {
    names: Arc<[String]>,
    /// Whether they are those of the consumer.
    of_consumer: bool,
}

impl Acl {
    pub(super) fn new(config: Config) -> Self {
        Self(config)
    }

    /// The groups that decide; `None` if it is not known who the request is from.
    fn groups(&self, request: &Request<'_>) -> Option<Groups> {
        let subject = &*request.subject;
        let authenticated = || {
            let names = subject.groups.clone()?;
            Some(Groups {
                names,
                of_consumer: false,
            })
        };
        // The groups of an anonymous consumer count only where there are no others.
        let is_known = subject.credential.is_some() && !self.0.always_use_authenticated_groups;
        if let Some(groups) = authenticated().filter(|_| !is_known) {
            return Some(groups);
        }
        let consumer = subject.consumer.as_ref()?;
        let names = request.identities.groups(consumer.id);
        Some(Groups {
            names: names.cloned().unwrap_or_default(),
            of_consumer: true,
        })
    }

    /// Whether requests with these groups are let in.
    fn permits(&self, groups: &[String]) -> bool {
        let is_in_one_of = |listed: &[String]| groups.iter().any(|group| listed.contains(group));
        match (self.0.deny.as_deref(), self.0.allow.as_deref()) {
            (Some(deny), _) if !deny.is_empty() => !is_in_one_of(deny),
            (_, allow) => is_in_one_of(allow.unwrap_or_default()),
        }
    }
}

impl Policy for Acl {
    fn dry_run(&self) -> DryRun {
        DryRun::Harmless
    }

    fn access<'a>(&'a self, request: &'a mut Request<'_>) -> Access<'a> {
        let unauthorized = || Answer::error(StatusCode::UNAUTHORIZED, "Unauthorized");
        let Some(groups) = self.groups(request) else {
            return unauthorized().into();
        };
        if !self.permits(&groups.names) {
            // An anonymous consumer without any group may be let in once it authenticates.
            let is_unknown = request.subject.credential.is_none() && groups.names.is_empty();
            return match is_unknown {
                true => unauthorized().into(),
                false => {
                    let message = "You cannot consume this service";
                    Answer::error(StatusCode::FORBIDDEN, message).into()
                }
            };
        }
        let headers = &mut request.head.headers;
        headers.remove(CONSUMER_GROUPS);
        headers.remove(AUTHENTICATED_GROUPS);
        if !self.0.hide_groups_header {
            let name = match groups.of_consumer {
                true => CONSUMER_GROUPS,
                false => AUTHENTICATED_GROUPS,
            };
            if let Ok(value) = HeaderValue::from_bytes(groups.names.join(", ").as_bytes()) {
                headers.insert(name, value);
            }
        }
        Access::PASS
    }
}
