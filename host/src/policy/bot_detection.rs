//! `bot-detection`: refuses clients whose `User-Agent` is that of a program. Source: Kong 3.9,
//! `bot-detection`.

use std::sync::LazyLock;

use http::StatusCode;
use http::header::USER_AGENT;

use super::answer::Answer;
use super::pattern_share::{MAX_BYTES, PatternShare};
use super::request::Request;
use super::{Access, DryRun, Policy};
use crate::entity::plugin::bot_detection::Config;
use crate::pattern::{Pattern, PatternError};

/// Parts of the agents of programs: crawlers, previews of links, monitors and libraries. Source:
/// uap-core, whose list of crawlers Kong has as well.
#[rustfmt::skip]
const NAMES: &[&str] = &[
    "50.nu", "Aboundex", "AdsBot-Google", "aihttp", "altavista", "Apache-HttpClient",
    "AppEngine-Google", "archiver", "Ask Jeeves", "axios", "bingbot", "BingPreview", "blitzbot",
    "BlogBridge", "Bloglovin", "BoardReader Blog Indexer", "boitho.com-dc", "BotSeer", "BUbiNG",
    "Catchpoint", "Checklinks", "Cityreview Robot", "clumboot", "Daumoa", "favicon",
    "Feed Seeker Bot", "Feedbin", "Finderbots", "findlinks", "Flamingo_SearchEngine",
    "FollowSite Bot", "furlbot", "Genieo", "gigabot", "Go-http-client", "GomezAgent", "gonzo1",
    "Google SketchUp", "Google-HTTP-Java-Client", "Googlebot", "grub-client", "heritrix",
    "HiddenMarket", "holmes", "HooWWWer", "htdig", "http%20client", "HttpMonitor", "ia_archiver",
    "Icarus6j", "ichiro", "IconSurf", "IlTrovatore", "InfuzApp", "InternetArchive", "JNLP",
    "Job Roboter", "Kraken", "Kurzor", "larbin", "LEIA", "LesnikBot", "Linguee Bot", "LinkAider",
    "LinkedInBot", "Lite Bot", "Llaut", "lycos", "Mail.RU_Bot", "masidani_bot", "masscan",
    "Mediapartners-Google", "MJ12bot", "mogimogi", "mozDex", "msnbot", "msrbot",
    "Mtps Feed Aggregation System", "netresearch", "Netvibes", "NewsGator", "Nutch", "Nymesis",
    "ObjectsSearch", "OgScrper", "okhttp", "OOZBOT", "Orbiter", "PagePeeker", "PagesInventory",
    "PaxleFramework", "Peeplo Screenshot Bot", "PlantyNet_WebRobot", "Pompos", "Python-urllib",
    "Qwantify", "Read%20Later", "Reaper", "RedCarpet", "reqwest", "Retreiver", "Riddler",
    "Rival IQ", "scalaj-http", "scooter", "Scrapy", "Scrubby", "searchsight", "seekbot",
    "semanticdiscovery", "SemrushBot", "SEOstats", "SimplePie", "SimpleRSS", "Simpy",
    "SiteCat Webbot", "SiteCon", "Slack-ImgProxy", "Slackbot-LinkExpanding", "Slurp", "snappy",
    "Squrl Java", "Stringer", "TheUsefulbot", "Thumbshots.ru", "ThumbShotsBot", "Tiny Tiny RSS",
    "TLSProber", "Twitterbot", "URL2PNG", "Vagabondo", "VoilaBot", "Votay bot", "WASALive.Bot",
    "Web-sniffer", "WebThumb", "WhatsApp", "WhatWeb", "WinHTTP", "WIRE", "WordPress", "Wotbox",
    "www.almaden.ibm.com", "yacy", "YahooSeeker", "YodaoBot", "YottaaMonitor", "Yowedo",
    "ZeBot_www.ze.bz", "ZooShot", "ZyBorg",
];

/// Patterns for the agents of programs. Browsers and `curl` have none of them, nor has a brand of
/// phones whose name ends in `BOT`.
const SHAPES: &[&str] = &[
    r"Pingdom\.com_bot_version_\d+\.\d|facebookexternalhit/\d+\.\d|Google.*/\+/web/snippet| PTST/\d+\.?\d+$",
    r"MSIE \d+\.\d.*; .* MSIECrawler|[Bb]ai[Dd]u[Ss]pider|[Cc]harlotte|\bYeti\b|jbot\b|\barchive.{0,30}\.org_bot",
    r"^NING|^vortex|^voyager|^Zao|Accoona-[A-z]{1,30}-Agent|IP2[a-z]{1,30}Bot|Microsoft .{0,30} Bot",
    r"WeSEE:[A-z]|Xenu(?:.s)? Link Sleuth|Xerka [A-z]{1,30}Bot|Yandex\w|unirest-(?:java|python|ruby|nodejs|php|net)",
    // Clients of object stores.
    r"\b(?:Boto3?|JetS3t|s3fs|aws-cli|aws-sdk-(?:cpp|go|java|nodejs|ruby2?|dotnet-(?:\d{1,2}|core)))/\d+\.\d",
    // `name/1` of crawlers whose name would say little without a version.
    r"\b(?:008|Altresium|Argus|BaiduMobaider|BoardReader|DNSGroup|DataparkSearch|EDI|Goodzer|Grub|INGRID)/\d",
    r"\b(?:Infohelfer|LOOQ|PathDefender|Peew|PostPost|Steeler|VSE|WebCrunch|WebZIP|Y!J-BR[A-Z]|envolk|sproose|wminer)/\d",
    // `/name-1`.
    r"/(?:[A-z-]+[Bb]ot|Axtaris|fetchurl|Isara|ShopSalad|Tailsweep)[ -]\d",
    // What others call themselves: `somebot/1.2`, `web spider`, `scraper`, `Crawler`.
    r"(?:[Aa]rchiver|[Ii]ndexer|[Bb]ot)[/ ]\d|[Ss]crape|(?i:spider|crawl)",
];

/// Refuses clients by their agents.
#[derive(Debug)]
pub(super) struct BotDetection {
    allow: Vec<Pattern>,
    deny: Vec<Pattern>,
    programs: &'static Pattern,
    _share: PatternShare,
}

impl BotDetection {
    /// # Errors
    /// A text is not a pattern, or the patterns take too much memory.
    pub(super) fn new(config: &Config) -> Result<Self, String> {
        let room = &mut { MAX_BYTES };
        Ok(Self {
            allow: compile(&config.allow, room)?,
            deny: compile(&config.deny, room)?,
            programs: programs()?,
            _share: PatternShare::take(MAX_BYTES - *room)?,
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
                format!(
                    "its regexes take more than {} MiB together",
                    MAX_BYTES >> 20
                )
            }
            error => error.to_string(),
        })
}

fn programs() -> Result<&'static Pattern, String> {
    static COMPILED: LazyLock<Result<Pattern, PatternError>> = LazyLock::new(|| {
        let names = NAMES.iter().map(|name| name.replace('.', r"\."));
        let shapes = SHAPES.iter().map(|shape| (*shape).to_owned());
        let all: Vec<String> = names.chain(shapes).collect();
        Pattern::new(&all.join("|"), "", &mut { MAX_BYTES })
    });
    COMPILED.as_ref().map_err(ToString::to_string)
}

impl Policy for BotDetection {
    fn dry_run(&self) -> DryRun {
        DryRun::Harmless
    }

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
            "aws-sdk-nodejs/2.1",
            "aws-sdk-dotnet-45/3.3",
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
            "Google-HTTP-Java-Client/1.20.0 (gzip)",
            "Apache-HttpClient (Java 1.5)",
            "MyBot 2.0",
            "spider",
            "Internet Archiver/2.0",
            "WordPress/6.1; https://example.com",
            "Qwantify/1.0",
            "Xenu Link Sleuth/1.3.8",
            "WhatsApp/2.23",
            "Mozilla/5.0 (compatible; Yeti/1.1; +http://naver.me/bot)",
            "YandexImages/3.0",
            "Mail.RU_Bot/2.0",
            "voyager/1.0",
            "DataparkSearch/4.0",
            "unirest-php",
            "okhttp",
            "Go-http-client",
            "screenscraper",
            "spiderman",
            "Bot 3",
        ] {
            assert!(policy.is_refused(agent.as_bytes()), "{agent}");
        }
        for agent in [
            "",
            "curl/8.5.0",
            "aws-sdk-js/2.0",
            "Mozilla/5.0 (X11) Chrome/120 Safari/537.36 Chrome-Lighthouse",
            "Feedly/1.0",
            "mybot/v1",
            "Mozilla/5.0 (compatible; Applebot; +http://www.apple.com/go/applebot)",
            "Google-Read-Aloud",
            "scraping-lib",
            "Mozilla/5.0 (Linux; Android 7.0; CUBOT 5 Build/NRD90M) AppleWebKit/537.36",
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
