//! A curve as one line of text, for terminals that have nothing but ASCII.

/// One character per sample, from `.` for the lowest to `#` for the highest. A flat curve is a row of `.`; what is not a number is a blank.
pub fn curve(samples: &[f64]) -> String {
    let known = samples.iter().copied().filter(|x| x.is_finite());
    let (low, high) = known.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
    samples.iter().map(|&x| mark(x, low, high)).collect()
}

/// The same in at most `width` characters: each stands for equally many samples and shows the highest of them, so that no peak is lost.
pub fn curve_within(samples: &[f64], width: usize) -> String {
    if width == 0 || samples.len() <= width {
        return curve(if width == 0 { &[] } else { samples });
    }
    let peaks: Vec<f64> = (0..width)
        .map(|column| {
            let part = &samples[column * samples.len() / width..(column + 1) * samples.len() / width];
            part.iter().copied().fold(f64::NAN, f64::max)
        })
        .collect();
    curve(&peaks)
}

fn mark(x: f64, low: f64, high: f64) -> char {
    if !x.is_finite() {
        return ' ';
    }
    let steps = MARKS.len() - 1;
    let height = if high > low { (x - low) / (high - low) } else { 0.0 };
    // The first step whose share reaches the height; there is one, since the height is at most 1.
    (0..=steps).find(|&i| height <= (i as f64 + 0.5) / steps as f64).map_or('#', |i| MARKS[i])
}

/// From low to high; what the eye takes for darker.
const MARKS: [char; 7] = ['.', ':', '-', '=', '+', '*', '#'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rise_and_fall_goes_up_and_down_the_marks() {
        assert_eq!(curve(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 3.0, 0.0]), ".:-=+*#=.");
        assert_eq!(curve(&[31.0, 31.0]), "..");
        assert_eq!(curve(&[1.0, f64::NAN, 2.0]), ". #");
        assert_eq!(curve(&[]), "");
    }

    #[test]
    fn a_narrow_curve_keeps_the_peak() {
        let mut samples = vec![30.0; 100];
        samples[57] = 47.0;
        let text = curve_within(&samples, 13);
        assert_eq!((text.len(), text.matches('#').count(), text.find('#')), (13, 1, Some(7)));
        assert_eq!(curve_within(&samples, 0), "");
    }
}
