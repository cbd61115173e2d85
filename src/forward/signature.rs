//! Standard Webhooks: the receiver of a request can tell that we sent it, what we sent, and when.
//!
//! HMAC-SHA256 over `<id>.<seconds>.<body>`, in base64 behind `v1,`; one for each secret, set apart
//! by spaces, so that secrets can be changed without a moment in which one side knows only the other.
//! The specification is at <https://github.com/standard-webhooks/standard-webhooks>.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::config::settings::Secret;

/// Signs with each of its secrets, in their order.
pub struct Signer(Vec<Hmac<Sha256>>);

impl Signer {
    /// With these keys, decoded.
    pub fn new(secrets: &[Secret]) -> Self {
        let prepare =
            |secret: &Secret| Hmac::new_from_slice(&secret.0).expect("a key has any length");
        Self(secrets.iter().map(prepare).collect())
    }

    /// Whether it signs at all.
    pub fn has_keys(&self) -> bool {
        !self.0.is_empty()
    }

    /// The value of `webhook-signature`. `id` is that of `webhook-id`, `seconds` (of Unix time) that
    /// of `webhook-timestamp`.
    pub fn sign(&self, id: &str, seconds: i64, body: &[u8]) -> String {
        let sign = |key: &Hmac<Sha256>| {
            let mut mac = key.clone();
            mac.update(format!("{id}.{seconds}.").as_bytes());
            mac.update(body);
            format!("v1,{}", data_encoding::BASE64.encode(&mac.finalize().into_bytes()))
        };
        self.0.iter().map(sign).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    #[test]
    fn the_example_of_the_specification_is_signed_as_it_says() {
        let key = data_encoding::BASE64.decode(b"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signer = Signer::new(&[Secret(key)]);
        let signature =
            signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn each_secret_signs_and_the_first_is_first() {
        let (old, new) = (Secret(b"old".to_vec()), Secret(b"new".to_vec()));
        let alone =
            |secret: &Secret| Signer::new(std::slice::from_ref(secret)).sign("id", 1, b"body");
        let both = Signer::new(&[new.clone(), old.clone()]).sign("id", 1, b"body");
        assert_eq!(both, format!("{} {}", alone(&new), alone(&old)));
        assert!(!Signer::new(&[]).has_keys());
    }
}
