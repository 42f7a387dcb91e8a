//! `bot-detection`: refuses clients whose `User-Agent` is that of a program. Source: Kong 3.9,
//! `bot-detection`.

use std::sync::LazyLock;

use http::StatusCode;
use http::header::USER_AGENT;

use super::answer::Answer;
use super::request::Request;
use super::{Access, Policy};
use crate::entity::plugin::bot_detection::Config;
use crate::pattern::{Pattern, PatternError};

/// What the agents of programs have. Browsers and `curl` have none of it.
const PROGRAMS: &[&str] = &[
    // Monitors and tools that measure web pages.
    "Pingdom|PTST/|GTmetrix|Chrome-Lighthouse|StatusCake|UptimeRobot|Site24x7",
    // Previews of links in social networks and messengers.
    r"facebookexternalhit|facebookcatalog|\+/web/snippet|Twitterbot|LinkedInBot|Slackbot",
    "Discordbot|TelegramBot|Pinterestbot|WhatsApp/|SkypeUriPreview|redditbot",
    // Crawlers of search engines, archives and models that do not have a generic name.
    "Googlebot|AdsBot-Google|Mediapartners-Google|Google-Read-Aloud|bingbot|BingPreview|YandexBot",
    "Baiduspider|DuckDuckBot|Applebot|Yahoo! Slurp|Sogou web|Exabot|PetalBot|Bytespider|CCBot",
    "GPTBot|ChatGPT-User|ClaudeBot|Amazonbot|AhrefsBot|SemrushBot|MJ12bot|DotBot|ia_archiver",
    "archive.org_bot|heritrix|Nutch|MSIECrawler|FeedFetcher|Feedly",
    // Libraries of HTTP clients.
    r"Go-http-client/|Apache-HttpClient/|okhttp/|axios/|reqwest/|Python-urllib/",
    // Clients of object stores.
    r"aws-sdk-|aws-cli/|\bBoto3?/|\bbotocore/|\bs3fs/",
    // What others call themselves: `somebot/1.2`, `/some-bot-1.2`, `web spider`, `scraper`.
    r"(?i-u:[a-z]bot/v?[0-9]|/[a-z_.-]*bot-v?[0-9]|\bbot[-/][0-9]|[a-z]spider\b|\bspider[-/ ;)])",
    r"(?i-u:\bscrap(?:er|y|ing)\b|scrape\b|crawl(?:er|ing)?\b)",
];

/// Memory of the patterns of a plugin, in bytes.
const MEMORY: usize = 16 << 20;

/// Refuses clients by their agents.
#[derive(Debug)]
pub(super) struct BotDetection {
    allow: Vec<Pattern>,
    deny: Vec<Pattern>,
    programs: &'static Pattern,
}

impl BotDetection {
    /// # Errors
    /// A pattern is none, or the patterns take too much memory.
    pub(super) fn new(config: &Config) -> Result<Self, String> {
        let room = &mut { MEMORY };
        Ok(Self {
            allow: compile(&config.allow, room)?,
            deny: compile(&config.deny, room)?,
            programs: programs()?,
        })
    }

    fn is_refused(&self, agent: &[u8]) -> bool {
        let agent = agent.trim_ascii();
        let is_of = |patterns: &[Pattern]| patterns.iter().any(|p| p.find(agent).is_some());
        !is_of(&self.allow) && (is_of(&self.deny) || self.programs.find(agent).is_some())
    }
}

fn compile(patterns: &[String], room: &mut usize) -> Result<Vec<Pattern>, String> {
    let patterns = patterns.iter().map(|text| Pattern::new(text, "", room));
    patterns
        .collect::<Result<_, _>>()
        .map_err(|error| match error {
            PatternError::NoRoom { .. } => {
                format!("its regexes take more than {} MiB together", MEMORY >> 20)
            }
            error => error.to_string(),
        })
}

fn programs() -> Result<&'static Pattern, String> {
    static COMPILED: LazyLock<Result<Pattern, PatternError>> =
        LazyLock::new(|| Pattern::new(&PROGRAMS.join("|"), "", &mut { MEMORY }));
    COMPILED.as_ref().map_err(ToString::to_string)
}

impl Policy for BotDetection {
    fn access<'a>(&'a self, request: &'a mut Request<'_>) -> Access<'a> {
        let mut agents = request.head.headers.get_all(USER_AGENT).iter();
        let Some(agent) = agents.next() else {
            return Access::PASS;
        };
        if agents.next().is_some() {
            let message = "Only one User-Agent header allowed";
            return Answer::error(StatusCode::BAD_REQUEST, message).into();
        }
        match self.is_refused(agent.as_bytes()) {
            true => Answer::error(StatusCode::FORBIDDEN, "Forbidden").into(),
            false => Access::PASS,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may fail by panicking")]
mod tests {
    use super::*;

    fn policy(allow: &[&str], deny: &[&str]) -> Result<BotDetection, String> {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let (allow, deny) = (list(allow), list(deny));
        BotDetection::new(&Config { allow, deny })
    }

    #[test]
    fn programs_are_refused_and_browsers_are_not() {
        let policy = policy(&[], &[]).unwrap();
        for agent in [
            "Pingdom.com_bot_version_1.4_(http://www.pingdom.com/)",
            "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
            "Mozilla/5.0 (Windows NT 6.1) Firefox/6.0 Google (+https://developers.google.com/+/web/snippet/)",
            "Twitterbot/1.0",
            "aws-sdk-java/1.11",
            "Boto/2.48.0 Python/2.7",
            "Boto3/1.9 Python/3.6",
            "s3fs/1.82",
            "Mozilla/5.0 (X11) Chrome/60 Safari/537.36 PTST/400",
            "/some-bot-1.2",
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            "Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1; MSIECrawler)",
            "Go-http-client/1.1",
            "Apache-HttpClient/4.5",
            "okhttp/4.9.0",
            "axios/1.6",
            "reqwest/0.11",
            "Python-urllib/3.11",
            "mybot/1",
            "My web spider/3",
            "somespider",
            "Scrapy/2.5",
            "site crawler",
        ] {
            assert!(policy.is_refused(agent.as_bytes()), "{agent}");
        }
        for agent in [
            "",
            "curl/8.5.0",
            "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
             Chrome/126.0.0.0 Safari/537.36",
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, \
             like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
            // A brand of phones.
            "Mozilla/5.0 (Linux; Android 10; CUBOT NOTE 20) AppleWebKit/537.36 (KHTML, like Gecko) \
             Chrome/126.0 Mobile Safari/537.36",
        ] {
            assert!(!policy.is_refused(agent.as_bytes()), "{agent}");
        }
    }

    #[test]
    fn what_is_allowed_passes_although_it_is_denied() {
        let policy = policy(&["^my", "Twitterbot"], &["mybrowser", "Opera$"]).unwrap();
        for (agent, refused) in [
            ("mybrowser/1", false),
            ("a mybrowser/1", true),
            ("  mybrowser/1  ", false),
            ("Twitterbot/1.0", false),
            ("twitterbot/1.0", true),
            ("MyBrowser", false),
            ("Opera", true),
            ("Opera ", true),
            ("Opera 9", false),
        ] {
            assert_eq!(policy.is_refused(agent.as_bytes()), refused, "{agent}");
        }
    }

    #[test]
    fn patterns_that_take_too_much_memory_are_refused() {
        let large: Vec<String> = (0..8).map(|n| format!(r"{n}\w{{200}}")).collect();
        let large: Vec<&str> = large.iter().map(String::as_str).collect();
        let error = policy(&[], &large).unwrap_err();
        assert!(error.contains("16 MiB"), "{error}");
    }
}
