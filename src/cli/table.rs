//! Tables for a terminal.

/// Prints rows under headings in aligned columns; cells are cut to `widest` characters.
pub fn print(headings: &[&str], rows: &[Vec<String>], widest: usize) {
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| shorten(cell, widest)).collect())
        .collect();
    let widths: Vec<usize> = headings
        .iter()
        .enumerate()
        .map(|(column, heading)| {
            let widest_cell = cells
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0);
            widest_cell.max(heading.chars().count())
        })
        .collect();
    let line = |row: &[String]| {
        let padded: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        println!("{}", padded.join("  ").trim_end());
    };
    line(&headings.iter().map(ToString::to_string).collect::<Vec<_>>());
    println!(
        "{}",
        widths
            .iter()
            .map(|width| "-".repeat(*width))
            .collect::<Vec<_>>()
            .join("  ")
    );
    for row in &cells {
        line(row);
    }
}

fn shorten(cell: &str, widest: usize) -> String {
    let cell: String = cell
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if cell.chars().count() <= widest {
        return cell;
    }
    let kept: String = cell.chars().take(widest.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::shorten;

    #[test]
    fn long_cells_are_cut_between_characters() {
        assert_eq!(shorten("Übergröße", 5), "Über…");
        assert_eq!(shorten("a\nb", 5), "a b");
    }
}
