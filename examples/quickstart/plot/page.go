package main

import (
	"bytes"
	"fmt"
	"image/color"
	"strings"
	"time"

	weights "golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	drawing "gonum.org/v1/plot/vg/draw"
	_ "gonum.org/v1/plot/vg/vgimg" // PNG
	_ "gonum.org/v1/plot/vg/vgsvg" // SVG
)

// The page, in points: blocks of three panels, one a run, in one or two columns.
const (
	margin      = 24
	headHeight  = 84
	blockHeight = 360
	blockHead   = 36
	blockGap    = 30
)

var (
	ink       = color.NRGBA{0x22, 0x2b, 0x38, 0xff}
	muted     = color.NRGBA{0x6b, 0x75, 0x82, 0xff}
	rule      = color.NRGBA{0xd9, 0xde, 0xe4, 0xff}
	oddBlue   = color.NRGBA{0x2f, 0x6d, 0xb5, 0xff}
	evenBlue  = color.NRGBA{0x8c, 0xbb, 0xe6, 0xff}
	amber     = color.NRGBA{0xe8, 0x96, 0x1e, 0xff}
	red       = color.NRGBA{0xc6, 0x28, 0x28, 0xff}
	green     = color.NRGBA{0x2e, 0x7d, 0x32, 0xff}
	rotating  = color.NRGBA{0x22, 0x2b, 0x38, 0x70}
	slowest   = color.NRGBA{0x9a, 0xa4, 0xb0, 0xff}
	ofBlues   = []color.NRGBA{evenBlue, oddBlue} // by generation
	sansSerif = font.Font{Typeface: "Liberation", Variant: "Sans"}
)

// draw returns the picture, as svg or png.
func draw(r report, kind string) ([]byte, error) {
	columns, blockWidth := 2, 560
	if len(r.Runs) == 1 {
		columns, blockWidth = 1, 860
	}
	rows := (len(r.Runs) + columns - 1) / columns
	width := vg.Length(2*margin + columns*blockWidth + (columns-1)*blockGap)
	height := vg.Length(2*margin + headHeight + rows*(blockHeight+blockGap))
	target, err := drawing.NewFormattedCanvas(width, height, kind)
	if err != nil {
		return nil, fmt.Errorf("a picture ends with .svg or .png: %w", err)
	}
	page := drawing.New(target)
	page.FillPolygon(color.White, corners(page.Rectangle))
	page = drawing.Crop(page, margin, -margin, margin, -margin)
	drawHead(page, r)
	for i, run := range r.Runs {
		x := vg.Length(i % columns * (blockWidth + blockGap))
		top := page.Max.Y - headHeight - vg.Length(i/columns)*(blockHeight+blockGap)
		block := page
		block.Min = vg.Point{X: page.Min.X + x, Y: top - blockHeight}
		block.Max = vg.Point{X: page.Min.X + x + vg.Length(blockWidth), Y: top}
		drawBlock(block, run)
	}
	var b bytes.Buffer
	if _, err := target.WriteTo(&b); err != nil {
		return nil, err
	}
	// SVG names the font, and a machine without it would choose one with serifs.
	return bytes.ReplaceAll(b.Bytes(), []byte("font-family:Liberation Sans;"),
		[]byte("font-family:'Liberation Sans',Arimo,Helvetica,Arial,sans-serif;")), nil
}

func drawHead(page drawing.Canvas, r report) {
	total, failed, rotations := 0, 0, 0
	for _, run := range r.Runs {
		total, failed, rotations = total+run.Requests.Total, failed+run.Requests.Failed, rotations+len(run.Rotations)
	}
	verdict, colour := "PASSED", green
	if !r.Passed {
		verdict, colour = "FAILED", red
	}
	write(page, page.Min.X, page.Max.Y-18, 18, ink, true, fmt.Sprintf("Key rotation drill: %s of %s requests failed across %s rotations",
		number(failed), number(total), number(rotations)))
	write(page, page.Min.X, page.Max.Y-36, 10, muted, false, fmt.Sprintf("%s, for %v, on %d × %s with Vault %s",
		r.Started.UTC().Format("2 January 2006 15:04 UTC"), time.Duration(r.Seconds)*time.Second, r.Machine.Cores, r.Machine.CPU, r.Vault))
	style := textStyle(14, colour, true)
	style.XAlign = text.XRight
	page.FillText(style, vg.Point{X: page.Max.X, Y: page.Max.Y - 18}, verdict)
	drawKey(page, page.Max.Y-58)
}

// drawKey says what the colours mean.
func drawKey(page drawing.Canvas, y vg.Length) {
	x := page.Min.X
	for _, entry := range []struct {
		colours []color.NRGBA
		says    string
	}{
		{[]color.NRGBA{oddBlue, evenBlue}, "answered, by odd and even generation"},
		{[]color.NRGBA{amber}, "rescued: its key was refused, another answered"},
		{[]color.NRGBA{red}, "failed"},
		{[]color.NRGBA{rotating}, "a new key in Vault"},
	} {
		for _, c := range entry.colours {
			page.FillPolygon(c, corners(vg.Rectangle{Min: vg.Point{X: x, Y: y}, Max: vg.Point{X: x + 9, Y: y + 9}}))
			x += 11
		}
		write(page, x+2, y+1, 10, ink, false, entry.says)
		face := sans(10, false)
		x += 2 + face.Width(entry.says) + 18
	}
}

func drawBlock(block drawing.Canvas, r run) {
	drawBlockHead(block, r)
	panels := [][]*plot.Plot{{requestsPanel(r)}, {latencyPanel(r)}, {excerptPanel(r)}}
	tiles := drawing.Tiles{Rows: len(panels), Cols: 1, PadY: 2}
	canvases := plot.Align(panels, tiles, drawing.Crop(block, 0, 0, 0, -blockHead))
	for i, row := range panels {
		row[0].Draw(canvases[i][0])
	}
}

// drawBlockHead says in two lines what the run was and what came of it.
func drawBlockHead(block drawing.Canvas, r run) {
	x, y := block.Min.X, block.Max.Y
	name, face := r.Weather+", "+r.SDK, sans(12, true)
	write(block, x, y-11, 12, ink, true, name)
	write(block, x+face.Width(name)+12, y-11, 10, muted, false,
		fmt.Sprintf("%d requests/s, %.0f %% streamed, poll %gs", r.Load.Rate, 100*r.Load.Streams, r.Load.Poll))
	agent, app := r.memory()
	right := textStyle(10, muted, false)
	right.XAlign = text.XRight
	block.FillText(right, vg.Point{X: block.Max.X, Y: y - 11}, fmt.Sprintf("at most: agent %.0f MiB, app %.0f MiB", agent, app))

	colour, says := muted, fmt.Sprintf("%s requests, %s rescued, %s failed;  %d rotations, each in use %s (median) or %s (p99) after it could be",
		number(r.Requests.Total), number(r.Requests.Rescued), number(r.Requests.Failed), len(r.Rotations), duration(r.Swap.P50), duration(r.Swap.P99))
	if r.Requests.Failed > 0 {
		colour = red
	}
	if r.Error != "" {
		colour, says = red, "broken off: "+strings.SplitN(r.Error, "\n", 2)[0]
	}
	write(block, x, y-25, 10, colour, false, says)
}

func sans(size vg.Length, bold bool) font.Face {
	f := sansSerif
	if bold {
		f.Weight = weights.WeightBold
	}
	return font.DefaultCache.Lookup(f, size)
}

func textStyle(size vg.Length, c color.Color, bold bool) text.Style {
	return text.Style{Color: c, Font: sans(size, bold).Font, Handler: plot.DefaultTextHandler}
}

// write writes with the baseline's start at x, y.
func write(c drawing.Canvas, x, y, size vg.Length, ink color.Color, bold bool, says string) {
	c.FillText(textStyle(size, ink, bold), vg.Point{X: x, Y: y}, says)
}

func corners(r vg.Rectangle) []vg.Point {
	return []vg.Point{r.Min, {X: r.Max.X, Y: r.Min.Y}, r.Max, {X: r.Min.X, Y: r.Max.Y}}
}

func duration(ms float64) string {
	if ms < 1000 {
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.2f s", ms/1000)
}

// number writes n with commas between its thousands.
func number(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
