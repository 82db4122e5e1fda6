//! The address of a broker.

use std::fmt;
use std::str::FromStr;

use crate::LinkError;

/// Where a broker is: `mqtt://[user[:password]@]host[:port]`, or `mqtts://` over TLS. Ports default to 1883 and 8883. What
/// a URL reserves stands percent-encoded in user and password. Displayed without the password.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    pub(crate) tls: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) credentials: Option<(String, String)>,
}

impl BrokerUrl {
    /// The unencrypted address of a broker at `address`.
    pub fn tcp(address: std::net::SocketAddr) -> Self {
        Self { tls: false, host: address.ip().to_string(), port: address.port(), credentials: None }
    }

    /// Host name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the connection is encrypted (`mqtts`).
    pub fn is_tls(&self) -> bool {
        self.tls
    }
}

impl FromStr for BrokerUrl {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        parse(text).map_err(|problem| LinkError::Address { address: without_password(text), problem })
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", if self.tls { "mqtts" } else { "mqtt" })?;
        if let Some((user, _)) = &self.credentials {
            write!(f, "{user}@")?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerUrl({self})")
    }
}

fn parse(text: &str) -> Result<BrokerUrl, String> {
    let (scheme, rest) = text.split_once("://").ok_or("it has no scheme")?;
    let tls = match scheme {
        "mqtt" => false,
        "mqtts" => true,
        other => return Err(format!("scheme `{other}` is not supported")),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (credentials, place) = match rest.rsplit_once('@') {
        Some((login, place)) => {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            if user.is_empty() {
                return Err("the user name is empty".into());
            }
            (Some((decode(user)?, decode(password)?)), place)
        }
        None => (None, rest),
    };
    let (host, port) = match place.strip_prefix('[') {
        Some(v6) => {
            let (host, after) = v6.split_once(']').ok_or("`[` without `]`")?;
            let address: std::net::Ipv6Addr = host.parse().map_err(|_| format!("`{host}` is not an IPv6 address"))?;
            let port = match after {
                "" => None,
                _ => Some(after.strip_prefix(':').ok_or("expected `:port` after `]`")?),
            };
            (address.to_string(), port)
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host.to_owned(), Some(port)),
            None => (place.to_owned(), None),
        },
    };
    if host.is_empty() {
        return Err("it names no host".into());
    }
    if let Some(odd) = host.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '-' | '_' | ':')) {
        return Err(format!("`{odd}` does not belong in a host name"));
    }
    let port = match port {
        None if tls => 8883,
        None => 1883,
        Some(digits) => match digits.parse() {
            Ok(0) | Err(_) => return Err(format!("`{digits}` is not a port (1 to 65535)")),
            Ok(port) => port,
        },
    };
    Ok(BrokerUrl { tls, host, port, credentials })
}

/// Percent-decoding (RFC 3986, section 2.1).
fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let (byte, after) = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digits = [char::from(*high).to_digit(16), char::from(*low).to_digit(16)];
                let [Some(high), Some(low)] = digits else {
                    return Err("`%` is not followed by two hexadecimal digits".into());
                };
                ((high * 16 + low) as u8, after)
            }
            (b'%', _) => return Err("`%` is not followed by two hexadecimal digits".into()),
            (byte, after) => (byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| "user or password is not UTF-8".into())
}

fn without_password(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let separator = if scheme.is_empty() { "" } else { "://" };
    match rest.rsplit_once('@') {
        Some((login, place)) => {
            let user = login.split_once(':').map_or(login, |(user, _)| user);
            format!("{scheme}{separator}{user}@{place}")
        }
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn addresses_are_read() {
        let url: BrokerUrl = "mqtt://broker.local".parse().unwrap();
        assert_eq!((url.host(), url.port(), url.is_tls()), ("broker.local", 1883, false));
        let url: BrokerUrl = "mqtts://anna:p%40ss%3a@10.0.0.7:9000/".parse().unwrap();
        assert_eq!((url.host(), url.port(), url.is_tls()), ("10.0.0.7", 9000, true));
        assert_eq!(url.credentials, Some(("anna".into(), "p@ss:".into())));
        let url: BrokerUrl = "mqtts://[::1]".parse().unwrap();
        assert_eq!((url.host(), url.port(), url.to_string().as_str()), ("::1", 8883, "mqtts://[::1]:8883"));
        let url: BrokerUrl = "mqtt://[fe80::1]:18830".parse().unwrap();
        assert_eq!((url.host(), url.port()), ("fe80::1", 18830));
    }

    #[test]
    fn wrong_addresses_say_what_is_wrong_and_hide_the_password() {
        for (text, part) in [
            ("broker:1883", "no scheme"),
            ("http://broker", "scheme `http`"),
            ("mqtt://", "no host"),
            ("mqtt://host:0", "not a port"),
            ("mqtt://host:70000", "not a port"),
            ("mqtt://::1", "no host"),
            ("mqtt://[::1", "without `]`"),
            ("mqtt://[zz]", "not an IPv6"),
            ("mqtt://host/topic", "`/` does not belong"),
            ("mqtt://:secret@host", "user name is empty"),
            ("mqtt://anna:secret%4@host", "hexadecimal"),
            ("mqtt://anna:secret@host:x", "not a port"),
        ] {
            let message = text.parse::<BrokerUrl>().unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
            assert!(!message.contains("secret"), "{message}");
        }
        let url: BrokerUrl = "mqtt://anna:secret@host".parse().unwrap();
        assert!(!format!("{url} {url:?}").contains("secret"));
    }
}
