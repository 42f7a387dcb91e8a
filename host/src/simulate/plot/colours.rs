//! The colours of lines.

use plotters::style::RGBColor;

/// Colours that people with any kind of colour vision can distinguish on white. The yellow of the
/// source is left out, because it is too light for a line. Source: Okabe and Ito, Color Universal
/// Design, 2008.
pub(super) const COLOURS: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
    RGBColor(0x00, 0x00, 0x00),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// A colour as amounts of light: red, green and blue, each from 0 to 1.
    type Light = [f64; 3];

    /// How people without the receptors for long, medium or short waves see the light of a screen.
    /// Source: Machado, Oliveira and Fernandes, A Physiologically-based Model for Simulation of
    /// Color Vision Deficiency, 2009, severity 1.0.
    const EYES: [(&str, [Light; 3]); 4] = [
        (
            "all receptors",
            [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        ),
        (
            "protanopia",
            [
                [0.152_286, 1.052_583, -0.204_868],
                [0.114_503, 0.786_281, 0.099_216],
                [-0.003_882, -0.048_116, 1.051_998],
            ],
        ),
        (
            "deuteranopia",
            [
                [0.367_322, 0.860_646, -0.227_968],
                [0.280_085, 0.672_501, 0.047_413],
                [-0.011_820, 0.042_940, 0.968_881],
            ],
        ),
        (
            "tritanopia",
            [
                [1.255_528, -0.076_749, -0.178_779],
                [-0.078_411, 0.930_809, 0.147_602],
                [0.004_733, 0.691_367, 0.303_900],
            ],
        ),
    ];

    /// Least distance of two colours in CIELAB. 2.3 is the least that can be seen where two areas
    /// touch; thin lines need several times as much.
    const APART: f64 = 15.0;

    /// Least contrast of a line with white, as WCAG 2 counts it. Its yellow would have 1.3.
    const CONTRAST: f64 = 2.0;

    fn light(colour: RGBColor) -> Light {
        // Source: IEC 61966-2-1 (sRGB).
        [colour.0, colour.1, colour.2].map(|part| {
            let part = f64::from(part) / 255.0;
            if part <= 0.040_45 {
                part / 12.92
            } else {
                ((part + 0.055) / 1.055).powf(2.4)
            }
        })
    }

    fn product(matrix: [Light; 3], light: Light) -> Light {
        matrix.map(|row| row.iter().zip(light).map(|(by, part)| by * part).sum())
    }

    fn seen(eye: [Light; 3], colour: RGBColor) -> Light {
        product(eye, light(colour)).map(|part| part.clamp(0.0, 1.0))
    }

    const XYZ: [Light; 3] = [
        [0.412_4, 0.357_6, 0.180_5],
        [0.212_6, 0.715_2, 0.072_2],
        [0.019_3, 0.119_2, 0.950_5],
    ];

    /// Source: CIE 15, with the white of a screen (D65).
    fn lab(light: Light) -> Light {
        let curve = |part: f64| {
            if part > 216.0 / 24_389.0 {
                part.cbrt()
            } else {
                (24_389.0 / 27.0 * part + 16.0) / 116.0
            }
        };
        let [x, y, z] = product(XYZ, light);
        let (x, y, z) = (curve(x / 0.950_5), curve(y), curve(z / 1.089));
        [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
    }

    #[test]
    fn colours_are_told_apart_with_any_colour_vision() {
        for (name, eye) in EYES {
            for (number, one) in COLOURS.iter().enumerate() {
                for other in &COLOURS[number + 1..] {
                    let pairs = lab(seen(eye, *one)).into_iter().zip(lab(seen(eye, *other)));
                    let distance = pairs.map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
                    assert!(distance >= APART, "{name}: {one:?} {other:?} {distance}");
                }
            }
        }
    }

    #[test]
    fn colours_stand_out_from_white() {
        for colour in COLOURS {
            let [_, luminance, _] = product(XYZ, light(colour));
            let contrast = 1.05 / (luminance + 0.05);
            assert!(contrast >= CONTRAST, "{colour:?} {contrast}");
        }
    }
}
