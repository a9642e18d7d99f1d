//! A table by dense index that grows by pages: a client that uses one high index pays for one page and not for all below it.

/// Entries in a page.
pub(super) const PAGE: usize = 64;

/// Entries by index; those never written read as absent or default.
#[derive(Debug)]
pub struct Pages<T>(Vec<Option<Box<[T; PAGE]>>>);

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Pages(Vec::new())
    }
}

impl<T: Default> Pages<T> {
    /// How many bytes the entry of `index` takes that are not there yet: those of its page.
    pub fn cost(&self, index: u32) -> u64 {
        let page = index as usize / PAGE;
        match self.0.get(page) {
            Some(Some(_)) => 0,
            Some(None) => Self::PAGE_BYTES,
            None => {
                Self::PAGE_BYTES + ((page + 1 - self.0.len()) * size_of::<Option<Box<[T; PAGE]>>>()) as u64
            }
        }
    }

    const PAGE_BYTES: u64 = (PAGE * size_of::<T>()) as u64;

    /// The entry, made if it is not there. The caller keeps `index` within its limit.
    pub fn entry(&mut self, index: u32) -> &mut T {
        let (page, at) = (index as usize / PAGE, index as usize % PAGE);
        if page >= self.0.len() {
            self.0.resize_with(page + 1, || None);
        }
        &mut self.0[page].get_or_insert_with(|| Box::new(std::array::from_fn(|_| T::default())))[at]
    }

    /// The entry, if its page is there.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let page = self.0.get_mut(index as usize / PAGE)?.as_mut()?;
        Some(&mut page[index as usize % PAGE])
    }

    /// The entry, if its page is there.
    pub fn get(&self, index: u32) -> Option<&T> {
        let page = self.0.get(index as usize / PAGE)?.as_ref()?;
        Some(&page[index as usize % PAGE])
    }

    /// All entries of the pages that are there, from index `from` on.
    pub fn iter_from(&self, from: u32) -> impl Iterator<Item = (u32, &T)> {
        let first = from as usize / PAGE;
        let pages = self.0.iter().enumerate().skip(first).filter_map(|(i, p)| p.as_ref().map(|p| (i, p)));
        pages
            .flat_map(|(i, p)| p.iter().enumerate().map(move |(at, t)| ((i * PAGE + at) as u32, t)))
            .skip_while(move |(index, _)| *index < from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_high_index_costs_one_page() {
        let mut t = Pages::<u8>::default();
        *t.entry(1_000_000) = 7;
        *t.entry(3) = 1;
        assert_eq!(t.0.iter().flatten().count(), 2);
        assert_eq!((t.cost(5), t.cost(100), t.cost(1_000_064)), (0, 64, 64 + 8));
        assert_eq!((t.get(1_000_000), t.get(999_000), t.get(2_000_000)), (Some(&7), None, None));
        *t.get_mut(3).unwrap() += 1;
        let some: Vec<_> = t.iter_from(3).filter(|(_, v)| **v != 0).map(|(i, v)| (i, *v)).collect();
        assert_eq!(some, [(3, 2), (1_000_000, 7)]);
        assert_eq!(t.iter_from(4).find(|(_, v)| **v != 0), Some((1_000_000, &7)));
    }
}
