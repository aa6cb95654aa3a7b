//! Headers that are read from lines.

use http::{HeaderMap, HeaderName, HeaderValue, Uri};

/// No header list is longer, where a server has not been told to let it in.
const MAX_LEN: usize = 16 * 1024;

/// Where a line goes, by its first letter.
const PLACES: [(u8, Place); 20] = {
    use Place::{Answer, Authority, EncodedDetails, InTrailers, Own, Path, Request, World};
    [
        (b's', Request("sentry-trace")),
        (b'p', Request("traceparent")),
        (b't', Request("tracestate")),
        (b'b', Request("baggage")),
        (b'T', Request("grpc-timeout")),
        (b'h', Request("host")),
        (b'x', Request("x-some")),
        (b'S', Own("sentry-trace")),
        (b'P', Own("traceparent")),
        (b'X', Own("tracestate")),
        (b'B', Own("baggage")),
        (b'c', Answer("grpc-status")),
        (b'm', Answer("grpc-message")),
        (b'd', Answer("grpc-status-details-bin")),
        (b'D', EncodedDetails),
        (b'y', Answer("x-other")),
        (b'i', InTrailers),
        (b'a', Authority),
        (b'u', Path),
        (b'w', World),
    ]
};

#[derive(Debug, Clone, Copy)]
enum Place {
    /// Of the request that a server receives.
    Request(&'static str),
    /// What the application puts on the request that it makes.
    Own(&'static str),
    Answer(&'static str),
    /// As base64, which whoever makes up bytes would have to guess.
    EncodedDetails,
    InTrailers,
    Authority,
    Path,
    World,
}

#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub(crate) world: usize,
    pub(crate) uri: Uri,
    pub(crate) request: HeaderMap,
    pub(crate) own: HeaderMap,
    pub(crate) answer: HeaderMap,
    /// The answer is there, and not in the head.
    pub(crate) in_trailers: bool,
    /// All that is of the request, as text of a protocol that takes any.
    pub(crate) texts: Vec<(&'static str, String)>,
}

impl Input {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut input = Self {
            world: 0,
            uri: Uri::from_static("http://localhost:50051/helloworld.Greeter/SayHello"),
            request: HeaderMap::new(),
            own: HeaderMap::new(),
            answer: HeaderMap::new(),
            in_trailers: false,
            texts: vec![],
        };
        let content_type = HeaderValue::from_static("application/grpc");
        input.request.insert("content-type", content_type.clone());
        input.own.insert("content-type", content_type);
        for line in bytes.split(|byte| *byte == b'\n') {
            if let Some((letter, text)) = line.split_first() {
                input.add(place(*letter), &repeated(text));
            }
        }
        input
    }

    fn add(&mut self, place: Place, text: &[u8]) {
        let (headers, name) = match place {
            Place::Request(name) => {
                let lossy = String::from_utf8_lossy(text).into_owned();
                self.texts.push((name, lossy));
                (&mut self.request, name)
            }
            Place::Own(name) => (&mut self.own, name),
            Place::Answer(name) => (&mut self.answer, name),
            Place::EncodedDetails => {
                // Most of what they are made of begins with what ends a line.
                let line_feed = |byte: &u8| if *byte == b'|' { b'\n' } else { *byte };
                let text: Vec<u8> = text.iter().map(line_feed).collect();
                let encoded = tonic::metadata::BinaryMetadataValue::from_bytes(&text);
                let value = HeaderValue::from_bytes(encoded.as_encoded_bytes()).unwrap();
                self.answer.append("grpc-status-details-bin", value);
                return;
            }
            Place::InTrailers => {
                self.in_trailers = true;
                return;
            }
            Place::Authority => return self.set_uri(text, self.uri.path().as_bytes().to_vec()),
            Place::Path => {
                let authority = self.uri.authority().map_or("", |it| it.as_str());
                let authority = authority.as_bytes().to_vec();
                return self.set_uri(&authority, text.to_vec());
            }
            Place::World => {
                self.world = text.first().copied().unwrap_or_default().into();
                return;
            }
        };
        // What HTTP would not carry does not come here.
        if let Ok(value) = HeaderValue::from_bytes(text) {
            headers.append(HeaderName::from_static(name), value);
        }
    }

    /// Where these are such parts of one.
    fn set_uri(&mut self, authority: &[u8], path: Vec<u8>) {
        let uri = Uri::builder()
            .scheme("http")
            .authority(authority)
            .path_and_query(path)
            .build();
        self.uri = uri.unwrap_or_else(|_| self.uri.clone());
    }
}

fn place(letter: u8) -> Place {
    let known = PLACES.iter().find(|(known, _)| *known == letter);
    let (_, place) = known.unwrap_or(&PLACES[usize::from(letter) % PLACES.len()]);
    *place
}

/// After `*n` as often as two to the n.
fn repeated(text: &[u8]) -> Vec<u8> {
    let [b'*', digit @ b'0'..=b'9', text @ ..] = text else {
        return text.to_vec();
    };
    let mut repeated = text.repeat(1 << (digit - b'0'));
    repeated.truncate(MAX_LEN);
    repeated
}
