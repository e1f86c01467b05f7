//! A picture as SVG: text, boxes, lines and arrows in colours that follow a light or a dark page.
//!
//! A picture has a background of its own, no fonts and no scripts. Its styles hold only below its
//! own id, so it may also be put into an HTML page. No line is blank, so Markdown takes it whole.

use svg::node::element::Element;
use svg::node::{Node, Text};

/// What a box, a line or a word stands for. It decides the colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Ordinary text, or an empty box.
    Plain,
    /// Less important than the rest.
    Muted,
    /// P-SEAMLDR, this library.
    Loader,
    /// The TDX module.
    Module,
    /// It went well, or it runs.
    Good,
    /// It waits.
    Waits,
    /// It failed.
    Bad,
}

impl Tone {
    const ALL: [Self; 7] =
        [Self::Plain, Self::Muted, Self::Loader, Self::Module, Self::Good, Self::Waits, Self::Bad];

    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Muted => "muted",
            Self::Loader => "loader",
            Self::Module => "module",
            Self::Good => "good",
            Self::Waits => "waits",
            Self::Bad => "bad",
        }
    }

    /// Returns the colours on a light page and on a dark page.
    const fn colours(self) -> (Colours, Colours) {
        match self {
            Self::Plain => (("#1f2328", "#f0f3f6"), ("#f0f6fc", "#1c232c")),
            Self::Muted => (("#59636e", "#ffffff"), ("#9da7b3", "#0d1117")),
            Self::Loader => (("#0757ba", "#cfe5ff"), ("#7cbcff", "#10345f")),
            Self::Module => (("#6639ba", "#eadcff"), ("#d2a8ff", "#3c2468")),
            Self::Good => (("#116329", "#c7f0d0"), ("#6fdd8b", "#12401f")),
            Self::Waits => (("#7d4e00", "#ffedb8"), ("#f0c35a", "#4a3500")),
            Self::Bad => (("#b3141d", "#ffd8d5"), ("#ff9a92", "#611318")),
        }
    }
}

/// The colour of words and lines, and the colour of the inside of boxes.
type Colours = (&'static str, &'static str);

/// The colours of thin lines and of the page: a light page and a dark page.
const LIGHT: Colours = ("#d1d9e0", "#ffffff");
const DARK: Colours = ("#3d444d", "#0d1117");

/// Where a text lies, relative to its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// The text begins at the point.
    Start,
    /// The text has its middle at the point.
    Middle,
    /// The text ends at the point.
    End,
}

/// How a text looks.
#[derive(Clone, Copy, Debug)]
pub struct Font {
    /// Height in pixels.
    pub size: f64,
    /// Whether each letter has the same width.
    pub mono: bool,
    /// Whether it is bold.
    pub bold: bool,
}

impl Font {
    /// Ordinary words.
    pub const WORDS: Self = Self { size: 13.0, mono: false, bold: false };
    /// Small words: labels of boxes and axes.
    pub const SMALL: Self = Self { size: 11.0, mono: false, bold: false };
    /// The title of a picture.
    pub const TITLE: Self = Self { size: 16.0, mono: false, bold: true };
    /// Names from code.
    pub const CODE: Self = Self { size: 12.0, mono: true, bold: false };

    /// The same in bold.
    #[must_use]
    pub const fn bold(self) -> Self {
        Self { bold: true, ..self }
    }

    /// The same in this height, in pixels.
    #[must_use]
    pub const fn sized(self, size: f64) -> Self {
        Self { size, ..self }
    }

    /// Returns the width that a text needs at most, in pixels: fonts differ.
    #[must_use]
    pub fn width(self, text: &str) -> f64 {
        let letter = if self.mono || self.bold { 0.62 } else { 0.58 };
        number(text.chars().count()) * self.size * letter
    }
}

/// A point: right and down from the upper left corner, in pixels.
pub type Point = (f64, f64);

/// The upper left corner of a box, its width and its height, in pixels.
pub type Area = (f64, f64, f64, f64);

/// A picture that is being drawn.
#[derive(Debug)]
pub struct Picture {
    id: &'static str,
    width: f64,
    title: String,
    nodes: Vec<Element>,
}

impl Picture {
    /// Begins a picture. The `id` is unique among the pictures of a page. The `title` is what a
    /// screen reader says.
    #[must_use]
    pub fn new(id: &'static str, width: f64, title: impl Into<String>) -> Self {
        Self { id, width, title: title.into(), nodes: Vec::new() }
    }

    /// Returns the width, in pixels.
    #[must_use]
    pub const fn width(&self) -> f64 {
        self.width
    }

    /// Writes a text at a point of its base line.
    pub fn text(&mut self, at: Point, anchor: Anchor, font: Font, tone: Tone, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let mut node = Element::new("text")
            .with("x", short(at.0))
            .with("y", short(at.1))
            .with("font-size", short(font.size))
            .with("text-anchor", anchor)
            .with("class", format!("t-{}{}", tone.name(), if font.mono { " mono" } else { "" }));
        if font.bold {
            node = node.with("font-weight", "600");
        }
        node.append(Text::new(text));
        self.nodes.push(node);
    }

    /// Draws a box. A pointer above it shows the `hint`.
    pub fn area(&mut self, (x, y, width, height): Area, tone: Tone, hint: Option<&str>) {
        let corner = (width.min(height) / 4.0).min(5.0);
        let mut node = Element::new("rect")
            .with("x", short(x))
            .with("y", short(y))
            .with("width", short(width))
            .with("height", short(height))
            .with("rx", short(corner))
            .with("class", format!("b-{}", tone.name()));
        if let Some(hint) = hint {
            let mut title = Element::new("title");
            title.append(Text::new(hint));
            node.append(title);
        }
        self.nodes.push(node);
    }

    /// Draws a box with a line of text in its middle.
    pub fn label(&mut self, area: Area, font: Font, tone: Tone, text: &str) {
        self.area(area, tone, None);
        let (x, y, width, height) = area;
        let base = y + height / 2.0 + font.size * 0.35;
        self.text((x + width / 2.0, base), Anchor::Middle, font, tone, text);
    }

    /// Draws a thin line that separates.
    pub fn rule(&mut self, from: Point, to: Point) {
        let node = path(&[from, to]).with("class", "rule");
        self.nodes.push(node);
    }

    /// Draws a thick line.
    pub fn mark(&mut self, from: Point, to: Point, tone: Tone) {
        let node = path(&[from, to]).with("class", format!("m-{}", tone.name()));
        self.nodes.push(node);
    }

    /// Draws an arrow along these points.
    pub fn arrow(&mut self, points: &[Point], tone: Tone) {
        self.nodes.push(path(points).with("class", format!("a-{}", tone.name())));
        let [.., before, end] = points else { return };
        let (dx, dy) = (end.0 - before.0, end.1 - before.1);
        let length = dx.hypot(dy).max(1.0);
        let (ux, uy) = (dx / length, dy / length);
        let back = (end.0 - 8.0 * ux, end.1 - 8.0 * uy);
        let side = |sign: f64| (back.0 - sign * 4.0 * uy, back.1 + sign * 4.0 * ux);
        self.nodes
            .push(path(&[*end, side(1.0), side(-1.0)]).with("class", format!("h-{}", tone.name())));
    }

    /// Ends the picture at this height and returns it as an SVG file.
    #[must_use]
    pub fn finish(self, height: f64) -> String {
        let (width, height) = (short(self.width), short(height));
        let mut title = Element::new("title");
        title.append(Text::new(self.title.as_str()));
        let mut style = Element::new("style");
        style.append(svg::node::Blob::new(styles(self.id)));
        let page = Element::new("rect")
            .with("width", width)
            .with("height", height)
            .with("rx", 8.0)
            .with("class", "page");
        let mut root = Element::new("svg")
            .with("xmlns", "http://www.w3.org/2000/svg")
            .with("id", self.id)
            .with("role", "img")
            .with("viewBox", format!("0 0 {width} {height}"))
            .with("width", width)
            .with("height", height)
            .with("style", "max-width:100%;height:auto");
        for node in [title, style, page].into_iter().chain(self.nodes) {
            root.append(node);
        }
        format!("{root}\n")
    }
}

/// Returns the style sheet of the picture with this id.
fn styles(id: &str) -> String {
    let mut text = format!(
        "#{id} text{{font-family:system-ui,-apple-system,'Segoe UI','Noto Sans','DejaVu \
         Sans',sans-serif}}\n#{id} .mono{{font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans \
         Mono',monospace;white-space:pre}}\n#{id} path{{fill:none}}\n"
    );
    text.push_str(&colours(id, LIGHT, |tone| tone.colours().0));
    text.push_str("@media (prefers-color-scheme:dark){\n");
    text.push_str(&colours(id, DARK, |tone| tone.colours().1));
    text.push('}');
    text
}

/// Returns the style sheet for one kind of page.
fn colours(id: &str, (rule, page): Colours, of: fn(Tone) -> Colours) -> String {
    let mut text =
        format!("#{id} .page{{fill:{page};stroke:{rule}}}\n#{id} .rule{{stroke:{rule}}}\n");
    for tone in Tone::ALL {
        let (name, (strong, soft)) = (tone.name(), of(tone));
        text.push_str(&format!(
            "#{id} .t-{name}{{fill:{strong}}}\n#{id} .b-{name}{{fill:{soft};stroke:{strong};\
             stroke-width:.7}}\n#{id} .m-{name}{{stroke:{strong};stroke-width:2}}\n#{id} \
             .a-{name}{{stroke:{strong};stroke-width:1.3}}\n#{id} .h-{name}{{fill:{strong}}}\n"
        ));
    }
    text
}

/// Returns a count as a floating-point number. Counts above `u32::MAX` are infinite.
#[must_use]
pub fn number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

/// Rounds to hundredths of a pixel.
fn short(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn path(points: &[Point]) -> Element {
    let mut data = String::new();
    for (x, y) in points {
        data.push_str(if data.is_empty() { "M" } else { " L" });
        data.push_str(&format!("{} {}", short(*x), short(*y)));
    }
    Element::new("path").with("d", data)
}

/// Sets an attribute, in a chain.
trait With: Sized {
    fn with(self, name: &str, value: impl Into<svg::node::Value>) -> Self;
}

impl With for Element {
    fn with(mut self, name: &str, value: impl Into<svg::node::Value>) -> Self {
        self.assign(name, value);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(text: &str) -> String {
        let mut picture = Picture::new("p", 100.0, "a <title>");
        picture.text((1.0, 20.0), Anchor::Start, Font::WORDS, Tone::Plain, text);
        picture.area((0.0, 0.0, 1.0 / 3.0, 2.0), Tone::Bad, Some("a & b"));
        picture.arrow(&[(0.0, 0.0), (10.0, 0.0)], Tone::Muted);
        picture.finish(50.0)
    }

    #[test]
    fn markup_in_a_text_is_escaped() {
        let svg = drawn("a < b && c > d");
        assert!(svg.contains("a &lt; b &amp;&amp; c"), "{svg}");
        assert!(svg.contains("a &lt;title&gt;") && svg.contains("a &amp; b"), "{svg}");
    }

    #[test]
    fn file_has_no_blank_line_and_no_address_but_the_name_of_svg() {
        let svg = drawn("text");
        assert!(svg.lines().all(|line| !line.trim().is_empty()));
        assert_eq!(svg.matches("http").count(), 1);
        assert!(svg.contains("prefers-color-scheme:dark"));
    }

    #[test]
    fn same_picture_gives_the_same_file() {
        assert_eq!(drawn("text"), drawn("text"));
    }
}
