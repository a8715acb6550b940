//go:build linux

package main

import (
	"encoding/xml"
	"fmt"
	"strings"
)

// A panel of the plot compares engines by one number, which is better the
// smaller it is.
type panel struct {
	title string
	bars  []bar
}

type bar struct {
	engine string
	value  float64
}

const (
	plotWidth  = 720
	labelWidth = 90
	valueWidth = 80
	barHeight  = 18
	titleSpace = 36
)

// drawPlot returns the panels as an SVG, one below the other.
func drawPlot(panels []panel) string {
	var b strings.Builder
	y := 10
	for _, p := range panels {
		y = p.draw(&b, y)
	}
	return fmt.Sprintf("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n"+
		"<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n%s</svg>\n", plotWidth, y+10, b.String())
}

// draw writes the panel from a height on, and returns where it ends.
func (p panel) draw(b *strings.Builder, y int) int {
	text := func(x, y int, anchor, what string) {
		fmt.Fprintf(b, "<text x=\"%d\" y=\"%d\" text-anchor=\"%s\">", x, y, anchor)
		_ = xml.EscapeText(b, []byte(what)) // a Builder takes everything
		b.WriteString("</text>\n")
	}
	text(10, y+20, "start", p.title)
	y += titleSpace
	var largest float64
	for _, bar := range p.bars {
		largest = max(largest, bar.value)
	}
	for _, bar := range p.bars {
		width := int(max(bar.value, 0) / max(largest, 1e-9) * (plotWidth - labelWidth - valueWidth))
		color := "#9aa5b1"
		if bar.engine == "caddy" {
			color = "#1f77b4"
		}
		text(labelWidth-8, y+barHeight-6, "end", bar.engine)
		fmt.Fprintf(b, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"%s\"/>\n", labelWidth, y, max(width, 1), barHeight-4, color)
		text(labelWidth+width+6, y+barHeight-6, "start", short(bar.value))
		y += barHeight
	}
	return y
}
