//! One call: an execution, or a request repeated.
//!
//! The repeated request is the yardstick, so nothing may be quicker: the HTTP library that the server's webhook client is
//! made of, without that client's pool, timers and signatures.

use super::connections::{Connection, Connections, exchange};
use super::pace::Job;
use super::plan::{Execute, Post, Work};
use super::sink::REQUEST_ID_PREFIX;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::Full;
use std::fmt::Write as _;
use std::path::Path;
use url::Url;

/// The organization of everything in the bench.
pub const ORGANIZATION: &str = "default@EsitoOrg";

/// The digits of microseconds since the Unix epoch, until the year 2286.
const MICROS_DIGITS: usize = 16;

/// Makes calls.
pub struct Caller {
    connections: Connections,
    path: Uri,
    what: What,
}

enum What {
    /// The same request, byte by byte.
    Repeat { headers: HeaderMap, body: Bytes },
    /// The same but for the time of the call, which stands at a place of the body.
    Stamp { headers: HeaderMap, body: String, at: usize },
    /// An execution, with the headers of each target.
    Execute { headers: Vec<HeaderMap>, execute: Execute },
}

impl Caller {
    /// A caller; with `stamped` a repeated request tells the time of its call.
    pub fn new(work: Work, ca_file: Option<&str>, stamped: bool) -> Result<Self, String> {
        let address = match &work {
            Work::Post(post) => post.url.clone(),
            Work::Execute(execute) => format!("{}/ajo/im/executions/unitary", execute.base),
        };
        let url = Url::parse(&address).map_err(|error| error.to_string())?;
        let what = match work {
            Work::Post(post) => What::post(post, &url, stamped)?,
            Work::Execute(execute) => What::execute(execute, &url)?,
        };
        let path = Uri::try_from(url.path()).map_err(|error| error.to_string())?;
        Ok(Self { connections: Connections::new(&url, ca_file.map(Path::new))?, path, what })
    }

    /// A connection of one's own.
    pub async fn connect(&self) -> Result<Connection, String> {
        self.connections.open().await
    }

    /// Calls on a connection.
    pub async fn call_on(&self, connection: &mut Connection, job: Job) -> Result<(), String> {
        self.judge(exchange(connection, self.request(job)).await?)
    }

    /// Calls on whatever connection is free.
    pub async fn call(&self, job: Job) -> Result<(), String> {
        self.judge(self.connections.call(self.request(job)).await?)
    }

    /// Which group the events of a call go to.
    pub fn group(&self, n: u64) -> &str {
        match &self.what {
            What::Execute { execute, .. } => &execute.targets[turn(n, execute.targets.len())].group,
            _ => "",
        }
    }

    fn judge(&self, (status, body): (StatusCode, Bytes)) -> Result<(), String> {
        if status.is_success() {
            return Ok(());
        }
        let told: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        Err(format!("{} {}", status.as_u16(), told["title"].as_str().unwrap_or_default()))
    }

    fn request(&self, job: Job) -> Request<Full<Bytes>> {
        let (headers, body) = match &self.what {
            What::Repeat { headers, body } => (headers, body.clone()),
            What::Stamp { headers, body, at } => {
                let mut stamped = body.clone();
                stamped.replace_range(*at..at + MICROS_DIGITS, &format!("{:016}", job.intended));
                (headers, Bytes::from(stamped))
            }
            What::Execute { headers, execute } => {
                let target = turn(job.n, headers.len());
                (&headers[target], Bytes::from(execution(&execute.targets[target].campaign, job)))
            }
        };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path.clone();
        *request.headers_mut() = headers.clone();
        request
    }
}

/// Whose turn the `n`th call is.
fn turn(n: u64, targets: usize) -> usize {
    usize::try_from(n).unwrap_or_default() % targets.max(1)
}

impl What {
    fn post(post: Post, url: &Url, stamped: bool) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in &post.headers {
            let name: HeaderName = name.parse().map_err(|_| "a header's name")?;
            // The library counts the body itself.
            if name != CONTENT_LENGTH {
                headers.append(name, header(value)?);
            }
        }
        headers.insert(HOST, host(url)?);
        let found = post.body.find(REQUEST_ID_PREFIX).map(|at| at + REQUEST_ID_PREFIX.len());
        let fits = |at: &usize| post.body.is_char_boundary(at + MICROS_DIGITS);
        Ok(match found.filter(|at| stamped && fits(at)) {
            Some(at) => Self::Stamp { headers, body: post.body, at },
            None => Self::Repeat { headers, body: Bytes::from(post.body) },
        })
    }

    fn execute(execute: Execute, url: &Url) -> Result<Self, String> {
        let mut common = HeaderMap::new();
        common.insert(HOST, host(url)?);
        common.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        common.insert(AUTHORIZATION, header(&format!("Bearer {}", execute.key))?);
        common.insert("x-gw-ims-org-id", HeaderValue::from_static(ORGANIZATION));
        let of_target = |target: &super::plan::Target| {
            let mut headers = common.clone();
            headers.insert("x-sandbox-name", header(&target.sandbox)?);
            Ok(headers)
        };
        let headers = execute.targets.iter().map(of_target).collect::<Result<_, String>>()?;
        Ok(Self::Execute { headers, execute })
    }
}

fn header(value: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(value).map_err(|error| error.to_string())
}

fn host(url: &Url) -> Result<HeaderValue, String> {
    header(&format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default()))
}

/// The body of an execution, written as text: the callers share the machine with what they measure.
fn execution(campaign: &str, Job { n, recipients, intended }: Job) -> String {
    let mut body =
        format!(r#"{{"requestId":"{REQUEST_ID_PREFIX}{intended:016}-{n}","campaignId":"{campaign}","recipients":["#);
    for i in 0..recipients {
        let comma = if i > 0 { "," } else { "" };
        // Writing to a text does not fail.
        let _ = write!(
            body,
            r#"{comma}{{"type":"external","userId":"customer-{n}-{i}","namespace":"ECID","channelData":{{"emailAddress":"sent+{n}.{i}@simulator.esito.test"}},"context":{{"order":"A-{n}","total":"42.00","currency":"EUR"}},"profile":{{"person":{{"name":{{"firstName":"Jane","lastName":"Roe"}}}}}}}}"#
        );
    }
    body.push_str("]}");
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[test]
    fn an_execution_is_json_with_the_time_of_its_call() {
        let job = Job { n: 7, recipients: 2, intended: 1_700_000_000_000_001 };
        let body: serde_json::Value = serde_json::from_str(&execution("c", job)).unwrap();
        assert_eq!(body["requestId"], "bench-1700000000000001-7");
        assert_eq!(body["recipients"][1]["channelData"]["emailAddress"], "sent+7.1@simulator.esito.test");
        assert_eq!(body["recipients"].as_array().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_stamped_request_differs_in_its_time_alone() {
        let post = |url: &str| Post {
            url: url.to_owned(),
            headers: vec![("content-length".into(), "9".into()), ("x-a".into(), "b".into())],
            body: r#"{"requestId":"bench-1700000000000001-7","x":1}"#.into(),
        };
        let caller = Caller::new(Work::Post(post("http://127.0.0.1:9/hook/0")), None, true).unwrap();
        let request = caller.request(Job { n: 0, recipients: 1, intended: 1_800_000_000_000_002 });
        assert_eq!(request.headers()["x-a"], "b");
        assert_eq!(request.headers()[HOST], "127.0.0.1:9");
        assert!(!request.headers().contains_key(CONTENT_LENGTH));
        let body = request.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, r#"{"requestId":"bench-1800000000000002-7","x":1}"#);
    }
}
