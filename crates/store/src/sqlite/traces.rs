//! What deleted rows leave in the file: bytes of theirs in the free space of pages, and whole pages on the free list.
//!
//! The format is SQLite's (https://www.sqlite.org/fileformat2.html): sections 1.5 (the free list), 1.6 (b-tree pages)
//! and 1.8 (pointer maps). Pages are read and written through the table `sqlite_dbpage`, in transactions like all else;
//! only bytes that belong to nothing are overwritten.

use crate::{Result, StoreError};
use rusqlite::{Connection, params};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The bytes that are searched in one go.
const BLOCK: usize = 4 * 1024 * 1024;
/// The kinds of pages that a pointer map knows and that matter here.
const FREE: u8 = 2;
const ROOT: u8 = 1;
const BRANCH: u8 = 5;

/// The numbers of the pages that hold the text, in any case of its ASCII letters. A text across the end of a page, which
/// only a row with overflow pages can have, counts for both.
pub(super) fn pages_with(file: &Path, page_bytes: usize, text: &str) -> std::io::Result<BTreeSet<u32>> {
    let wanted = text.to_ascii_lowercase().into_bytes();
    let mut pages = BTreeSet::new();
    if wanted.is_empty() || page_bytes == 0 {
        return Ok(pages);
    }
    let mut source = File::open(file)?;
    let finder = memchr::memmem::Finder::new(&wanted);
    // The end of a block is looked at again with the next one.
    let (mut buffer, mut kept, mut offset) = (vec![0; BLOCK + wanted.len()], 0, 0);
    loop {
        let read = source.read(&mut buffer[kept..])?;
        if read == 0 {
            return Ok(pages);
        }
        let block = &mut buffer[..kept + read];
        block.make_ascii_lowercase();
        for at in finder.find_iter(block) {
            for byte in [offset + at, offset + at + wanted.len() - 1] {
                pages.insert(u32::try_from(byte / page_bytes + 1).unwrap_or(u32::MAX));
            }
        }
        let end = block.len();
        let keep = (wanted.len() - 1).min(end);
        buffer.copy_within(end - keep..end, 0);
        (offset, kept) = (offset + end - keep, keep);
    }
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(format!("a page of the database: {what}"))
}

fn number(bytes: &[u8], at: usize) -> Result<usize> {
    let two = bytes.get(at..at + 2).ok_or_else(|| corrupt("too short"))?;
    Ok(usize::from(u16::from_be_bytes([two[0], two[1]])))
}

fn long(bytes: &[u8], at: usize) -> Result<u32> {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).ok_or_else(|| corrupt("too short"))?;
    Ok(u32::from_be_bytes(four))
}

/// Overwrites what belongs to nothing in these pages; how many were changed.
pub(super) fn clear(connection: &Connection, pages: &[u32]) -> Result<usize> {
    let first = page(connection, 1)?;
    let page_bytes = first.len();
    // Section 1.3.4: bytes at the end of each page that others use.
    let usable = page_bytes - usize::from(*first.get(20).ok_or_else(|| corrupt("too short"))?);
    let trunks = trunks(connection, long(&first, 32)?)?;
    let mut changed = 0;
    for number in pages {
        let Ok(before) = page(connection, *number) else { continue };
        let mut after = before.clone();
        match kind(connection, *number, usable)? {
            Some(FREE) if trunks.contains(number) => {
                let leaves = usize::try_from(long(&after, 4)?).map_err(|_| corrupt("a free list"))?;
                after.get_mut(8 + 4 * leaves..).ok_or_else(|| corrupt("a free list"))?.fill(0);
            }
            Some(FREE) => after.fill(0),
            Some(ROOT | BRANCH) => clear_tree_page(&mut after[..usable], 0)?,
            None if *number == 1 => clear_tree_page(&mut after[..usable], 100)?,
            _ => {}
        }
        if after != before {
            let mut update = connection.prepare_cached("UPDATE sqlite_dbpage SET data = ?2 WHERE pgno = ?1")?;
            update.execute(params![number, after])?;
            changed += 1;
        }
    }
    Ok(changed)
}

fn page(connection: &Connection, number: u32) -> Result<Vec<u8>> {
    let mut query = connection.prepare_cached("SELECT data FROM sqlite_dbpage WHERE pgno = ?1")?;
    Ok(query.query_row([number], |row| row.get(0))?)
}

/// The pages that link the free list.
fn trunks(connection: &Connection, first: u32) -> Result<BTreeSet<u32>> {
    let (mut trunks, mut next) = (BTreeSet::new(), first);
    while next != 0 && trunks.insert(next) {
        next = long(&page(connection, next)?, 0)?;
    }
    Ok(trunks)
}

/// What a page is, as the pointer map says; none for the first page and the maps themselves.
fn kind(connection: &Connection, number: u32, usable: usize) -> Result<Option<u8>> {
    let each = u32::try_from(usable / 5).map_err(|_| corrupt("its size"))?;
    if number < 3 {
        return Ok(None);
    }
    let place = (number - 2) / (each + 1) * (each + 1) + 2;
    if place == number {
        return Ok(None);
    }
    let map = page(connection, place)?;
    let at = usize::try_from(5 * (number - place - 1)).map_err(|_| corrupt("its number"))?;
    map.get(at).copied().map(Some).ok_or_else(|| corrupt("a pointer map"))
}

/// The gap between the cells' places and the cells, and the blocks that cells have left. `start`: the first page has the
/// file's header before the page's.
fn clear_tree_page(page: &mut [u8], start: usize) -> Result<()> {
    let head = match page.get(start) {
        Some(2 | 5) => 12,
        Some(10 | 13) => 8,
        _ => return Err(corrupt("its kind")),
    };
    let cells = number(page, start + 3)?;
    let content = match number(page, start + 5)? {
        0 => 65_536,
        content => content,
    };
    let gap = page.get_mut(start + head + 2 * cells..content).ok_or_else(|| corrupt("its cells"))?;
    gap.fill(0);
    let mut block = number(page, start + 1)?;
    while block != 0 {
        let (next, size) = (number(page, block)?, number(page, block + 2)?);
        page.get_mut(block + 4..block + size).ok_or_else(|| corrupt("a free block"))?.fill(0);
        // They are in the order of their places.
        if next != 0 && next <= block {
            return Err(corrupt("its free blocks"));
        }
        block = next;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_in_its_pages_whatever_its_case() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x");
        let mut bytes = vec![b'.'; 3 * BLOCK];
        for at in [5, 4096 * 3 + 17, BLOCK + 3, 2 * BLOCK - 4] {
            bytes[at..at + 8].copy_from_slice(b"Jane@x.y");
        }
        std::fs::write(&file, &bytes).unwrap();
        let page = |at: usize| u32::try_from(at / 4096 + 1).unwrap();
        let wanted = [1, 4, page(BLOCK), page(2 * BLOCK - 4), page(2 * BLOCK)];
        assert_eq!(pages_with(&file, 4096, "jANE@x.y").unwrap(), BTreeSet::from(wanted));
        assert!(pages_with(&file, 4096, "joe@x.y").unwrap().is_empty());
    }

    #[test]
    fn what_deleted_rows_leave_is_cleared_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.db");
        let connection = Connection::open(&file).unwrap();
        connection
            .execute_batch(
                "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA secure_delete = OFF; \
                 CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT); CREATE TABLE w (a TEXT PRIMARY KEY, b) WITHOUT ROWID; \
                 CREATE INDEX i ON t (b);",
            )
            .unwrap();
        for n in 0..3_000 {
            let text = format!("person-{n}-jane.roe@example.com-{}", "x".repeat(n % 90));
            connection.execute("INSERT INTO t (b) VALUES (?1)", [&text]).unwrap();
            connection.execute("INSERT INTO w VALUES (?1, ?2)", params![text, n]).unwrap();
        }
        // Some pages stay, some become free; in the others there are holes.
        let gone = "a NOT IN (SELECT a FROM t WHERE a BETWEEN 500 AND 1500 AND a % 3 = 0)";
        connection
            .execute_batch(&format!("DELETE FROM t WHERE {gone}; DELETE FROM w WHERE b + 1 NOT IN (SELECT a FROM t)"))
            .unwrap();
        connection.execute_batch("UPDATE t SET b = replace(b, 'jane.roe@example.com', 'nobody'); UPDATE w SET a = replace(a, 'jane.roe@example.com', 'nobody')").unwrap();
        let sum = "SELECT (SELECT group_concat(b) FROM t) || (SELECT group_concat(a || b) FROM w)";
        let before: String = connection.query_row(sum, [], |row| row.get(0)).unwrap();
        let pages: Vec<u32> = pages_with(&file, 4096, "jane.roe@example.com").unwrap().into_iter().collect();
        assert!(pages.len() > 20, "{pages:?}");
        assert!(clear(&connection, &pages).unwrap() > 20);
        assert!(pages_with(&file, 4096, "jane.roe@example.com").unwrap().is_empty());
        let found: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(found, "ok");
        assert_eq!(connection.query_row(sum, [], |row| row.get::<_, String>(0)).unwrap(), before);
        connection
            .execute_batch(
                "INSERT INTO t (b) SELECT b || 'again' FROM t; DELETE FROM t WHERE a % 2; PRAGMA incremental_vacuum;",
            )
            .unwrap();
        let found: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(found, "ok");
    }
}
