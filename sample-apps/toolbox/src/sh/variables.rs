//! Variables with their export and readonly marks.

use std::collections::BTreeMap;
use std::rc::Rc;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variable {
    /// Unset but marked has no value.
    pub value: Option<String>,
    pub exported: bool,
    pub readonly: bool,
}

/// Copies share until one writes, so that a subshell costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    map: Rc<BTreeMap<String, Variable>>,
    random: u32,
    pub line: u32,
    /// `set -a`
    pub export_all: bool,
}

impl Variables {
    pub fn of_environment(environment: &BTreeMap<String, String>) -> Self {
        let variable = |value: &String| Variable {
            value: Some(value.clone()),
            exported: true,
            readonly: false,
        };
        Self {
            map: Rc::new(
                environment
                    .iter()
                    .map(|(name, value)| (name.clone(), variable(value)))
                    .collect(),
            ),
            random: std::process::id(),
            ..Self::default()
        }
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.map
            .get(name)
            .and_then(|variable| variable.value.as_deref())
    }

    /// As [`Variables::get`], with the variables that the shell computes.
    pub fn read(&mut self, name: &str) -> Option<String> {
        match name {
            "LINENO" => Some(self.line.to_string()),
            "RANDOM" => {
                self.random = self.random.wrapping_mul(1_103_515_245).wrapping_add(12_345);
                Some((self.random >> 16 & 0x7FFF).to_string())
            }
            _ => self.get(name).map(str::to_owned),
        }
    }

    pub fn variable(&self, name: &str) -> Option<&Variable> {
        self.map.get(name)
    }

    /// Puts a variable in the state that it had, as at the end of a function.
    pub fn restore(&mut self, name: &str, before: Option<Variable>) {
        let map = Rc::make_mut(&mut self.map);
        match before {
            Some(variable) => drop(map.insert(name.to_owned(), variable)),
            None => drop(map.remove(name)),
        }
    }

    /// Refuses to write what is readonly, with the shell's words.
    pub fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        if self.map.get(name).is_some_and(|variable| variable.readonly) {
            return Err(format!("{name}: is read only"));
        }
        let export_all = self.export_all;
        let variable = self.entry(name);
        variable.value = Some(value);
        variable.exported |= export_all;
        Ok(())
    }

    pub fn unset(&mut self, name: &str) -> Result<(), String> {
        if self.map.get(name).is_some_and(|variable| variable.readonly) {
            return Err(format!("{name}: is read only"));
        }
        if self.map.contains_key(name) {
            Rc::make_mut(&mut self.map).remove(name);
        }
        Ok(())
    }

    /// The variable to mark, which may be new and without a value.
    pub fn entry(&mut self, name: &str) -> &mut Variable {
        Rc::make_mut(&mut self.map)
            .entry(name.to_owned())
            .or_default()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&String, &Variable)> {
        self.map.iter()
    }

    /// What a command gets.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let exported = self.map.iter().filter(|(_, variable)| variable.exported);
        exported
            .filter_map(|(name, variable)| Some((name.clone(), variable.value.clone()?)))
            .collect()
    }
}
