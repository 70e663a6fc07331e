//! A walk through JSON text that builds nothing of it.
//!
//! Whoever walks says what to do with objects and lists ([`Containers`]); what holds nothing is passed over.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// What is done with what holds other values. It has to go through all of them, as deserialisers ask.
pub trait Containers<'de>: Sized {
    /// # Errors
    /// Of the text.
    fn object<A: MapAccess<'de>>(self, members: A) -> Result<(), A::Error>;

    /// # Errors
    /// Of the text.
    fn list<A: SeqAccess<'de>>(self, elements: A) -> Result<(), A::Error>;
}

/// One value on the way.
pub struct Walk<T>(pub T);

impl<'de, T: Containers<'de>> DeserializeSeed<'de> for Walk<T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Containers<'de>> Visitor<'de> for Walk<T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<(), A::Error> {
        self.0.object(members)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<(), A::Error> {
        self.0.list(elements)
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}
