//! The clock on the wall of a time zone: which moment a time is that a schedule names, also where the clock is moved.
//!
//! An expression names local times, and each of them is one tick, in order: of two moments that show it the first, and
//! where the clock jumps over it the moment to which it jumps; what is jumped over together is one tick there, and no
//! other than the one of that very moment if that is named too. If the hours are all named there is no particular one to
//! keep: then every moment that shows a named time is a tick, so both doubled hours have theirs and none is made up.
//!
//! The library that reads the expressions has other rules for moved clocks, so it is only asked for local times.

use croner::Cron;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

/// The ticks of an expression in a zone.
pub(super) struct WallClock<'a> {
    pub(super) cron: &'a Cron,
    pub(super) zone: &'a TimeZone,
}

/// The local times that the clock shows twice where it is set back: from, and up to but not including.
struct Doubled {
    from: DateTime,
    to: DateTime,
    /// How far it is from UTC when it shows them again.
    again: Offset,
}

impl WallClock<'_> {
    /// The first tick after a moment.
    pub(super) fn next_tick(&self, after: Timestamp) -> Option<Timestamp> {
        let offset = self.zone.to_offset(after);
        let shown = offset.to_datetime(after);
        let Some(doubled) = self.doubled(shown) else { return self.moment(self.named_after(shown)?) };
        let is_again = offset == doubled.again;
        if !self.names_every_hour() {
            // What is shown again had its tick.
            return self.moment(if is_again { self.named_from(doubled.to)? } else { self.named_after(shown)? });
        }
        let named = self.named_after(shown)?;
        if named < doubled.to {
            return offset.to_timestamp(named).ok();
        }
        match self.named_from(doubled.from)? {
            again if !is_again && again < doubled.to => doubled.again.to_timestamp(again).ok(),
            _ => self.moment(named),
        }
    }

    fn names_every_hour(&self) -> bool {
        (0..24).all(|hour| self.cron.pattern.hour_match(hour).unwrap_or(false))
    }

    fn named_after(&self, shown: DateTime) -> Option<DateTime> {
        self.cron.find_next_occurrence(&shown, false).ok()
    }

    fn named_from(&self, shown: DateTime) -> Option<DateTime> {
        self.cron.find_next_occurrence(&shown, true).ok()
    }

    /// The tick of a named time; of one that is jumped over, if it has none of its own, that of the next.
    fn moment(&self, mut named: DateTime) -> Option<Timestamp> {
        loop {
            match self.zone.to_ambiguous_timestamp(named).offset() {
                AmbiguousOffset::Unambiguous { offset } => return offset.to_timestamp(named).ok(),
                AmbiguousOffset::Fold { before, .. } => return before.to_timestamp(named).ok(),
                AmbiguousOffset::Gap { after, .. } => {
                    let end = self.change(after.to_timestamp(named).ok()?, after)?;
                    if !self.names_every_hour() {
                        return Some(end);
                    }
                    named = self.named_from(after.to_datetime(end))?;
                }
            }
        }
    }

    fn doubled(&self, shown: DateTime) -> Option<Doubled> {
        let AmbiguousOffset::Fold { before, after } = self.zone.to_ambiguous_timestamp(shown).offset() else {
            return None;
        };
        let set_back = self.change(before.to_timestamp(shown).ok()?, after)?;
        Some(Doubled { from: after.to_datetime(set_back), to: before.to_datetime(set_back), again: after })
    }

    /// When the clock is next moved to this offset.
    fn change(&self, after: Timestamp, offset: Offset) -> Option<Timestamp> {
        self.zone.following(after).find(|change| change.offset() == offset).map(|change| change.timestamp())
    }
}

#[cfg(test)]
mod tests;
