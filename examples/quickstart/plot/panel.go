package main

import (
	"fmt"
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	drawing "gonum.org/v1/plot/vg/draw"
)

// distinguishable is how many rotations a run may have for its generations to be told apart in a picture of all of it.
const distinguishable = 60

// requestsPanel shows how many requests a second had which outcome.
func requestsPanel(r run) *plot.Plot {
	p := panel("requests/s", 0, r.Seconds)
	p.Y.Min, p.Y.Max = 0, 1
	s := stack{run: r, byGeneration: len(r.Rotations) <= distinguishable}
	for _, b := range r.Timeline {
		n := b.Rescued + b.Failed
		for _, g := range b.Generations {
			n += g.Requests
		}
		p.Y.Max = max(p.Y.Max, float64(n)/r.Bucket)
	}
	p.Y.Max *= 1.08
	p.Y.Tick.Marker = few(3)
	p.Add(s, marks{rotations: r.Rotations, short: !s.byGeneration})
	return p
}

// latencyPanel shows the latency over the whole run.
func latencyPanel(r run) *plot.Plot {
	p := panel("latency, ms", 0, r.Seconds)
	var median, high, most plotter.XYs
	for _, b := range r.Timeline {
		if b.Latency.Count == 0 {
			continue
		}
		x := b.At + r.Bucket/2
		median, high, most = append(median, plotter.XY{X: x, Y: visible(b.Latency.P50)}),
			append(high, plotter.XY{X: x, Y: visible(b.Latency.P99)}), append(most, plotter.XY{X: x, Y: visible(b.Latency.Max)})
	}
	logarithmic(p, most)
	p.Add(line{high, slowest}, line{median, oddBlue}, names{{"p99", slowest}, {"median", oddBlue}})
	return p
}

// excerptPanel shows each request of a few moments.
func excerptPanel(r run) *plot.Plot {
	from, to := 0.0, 1.0
	if n := len(r.Excerpt); n > 0 {
		from, to = r.Excerpt[0].At, r.Excerpt[n-1].At
	}
	p := panel("each request, ms", from, to)
	p.X.Label.Text = "seconds since the start; above the whole run, here some moments of it"
	var all plotter.XYs
	for _, q := range r.Excerpt {
		all = append(all, plotter.XY{X: q.At, Y: visible(q.Latency)})
	}
	logarithmic(p, all)
	p.Add(marks{rotations: r.Rotations}, dots(r.Excerpt))
	return p
}

// panel returns an empty plot from one time to another.
func panel(measure string, from, to float64) *plot.Plot {
	p := plot.New()
	p.X.Min, p.X.Max = from, to
	p.Y.Label.Text = measure
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.LineStyle = drawing.LineStyle{Color: rule, Width: 0.7}
		axis.Padding = 0
		axis.Tick.LineStyle = axis.LineStyle
		axis.Tick.Length = 3
		axis.Tick.Label.Font, axis.Tick.Label.Color = sans(8.5, false).Font, muted
		axis.Label.TextStyle.Font, axis.Label.TextStyle.Color = sans(8.5, false).Font, ink
	}
	p.X.Tick.Marker = few(8)
	grid := plotter.NewGrid()
	grid.Vertical.Width = 0
	grid.Horizontal = drawing.LineStyle{Color: rule, Width: 0.5}
	p.Add(grid)
	return p
}

// visible keeps latencies of nothing on a logarithmic axis.
func visible(ms float64) float64 { return max(ms, 0.1) }

func logarithmic(p *plot.Plot, points plotter.XYs) {
	lowest, highest := 0.5, 20.0
	for _, xy := range points {
		lowest, highest = min(lowest, xy.Y), max(highest, xy.Y)
	}
	p.Y.Min, p.Y.Max = lowest, highest*1.3
	p.Y.Scale = plot.LogScale{}
	p.Y.Tick.Marker = plot.TickerFunc(decades)
}

// few marks about n round values.
type few int

// Ticks implements plot.Ticker.
func (n few) Ticks(low, high float64) []plot.Tick {
	step := math.Pow(10, math.Floor(math.Log10((high-low)/float64(n))))
	for _, times := range []float64{1, 2, 5, 10} {
		if (high-low)/(step*times) <= float64(n) {
			step *= times
			break
		}
	}
	var ticks []plot.Tick
	for i := math.Ceil(low / step); i*step <= high; i++ {
		ticks = append(ticks, plot.Tick{Value: i * step, Label: fmt.Sprintf("%.6g", i*step)})
	}
	return ticks
}

func decades(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	for power := math.Floor(math.Log10(low)); power <= math.Log10(high); power++ {
		if v := math.Pow(10, power); v >= low {
			ticks = append(ticks, plot.Tick{Value: v, Label: fmt.Sprintf("%g", v)})
		}
	}
	return ticks
}

// seam is how far a bucket reaches beneath the next, in points: a gap between two would be seen as a line.
const seam = 0.4

// stack draws what became of the requests, one on the other.
type stack struct {
	run          run
	byGeneration bool
}

// Plot implements plot.Plotter.
func (s stack) Plot(c drawing.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	for _, b := range s.run.Timeline {
		left, right := x(b.At), min(x(b.At+s.run.Bucket)+seam, c.Max.X)
		base := 0.0
		pile := func(n int, fill color.Color) {
			if n > 0 && right > left {
				top := base + float64(n)/s.run.Bucket
				c.FillPolygon(fill, corners(vg.Rectangle{Min: vg.Point{X: left, Y: y(base)}, Max: vg.Point{X: right, Y: y(top)}}))
				base = top
			}
		}
		pile(b.Failed, red)
		pile(b.Rescued, amber)
		answered := 0
		for _, g := range b.Generations {
			if s.byGeneration {
				pile(g.Requests, ofBlues[g.Generation%2])
			}
			answered += g.Requests
		}
		if !s.byGeneration {
			pile(answered, evenBlue)
		}
	}
}

// marks draws a line where a key was written to Vault; short ones where they are many.
type marks struct {
	rotations []rotation
	short     bool
}

// Plot implements plot.Plotter.
func (m marks) Plot(c drawing.Canvas, p *plot.Plot) {
	x, _ := p.Transforms(&c)
	bottom := c.Min.Y
	if m.short {
		bottom = c.Max.Y - 5
	}
	for _, r := range m.rotations {
		if r.Written >= p.X.Min && r.Written <= p.X.Max {
			at := x(r.Written)
			c.StrokeLine2(drawing.LineStyle{Color: rotating, Width: 0.6}, at, bottom, at, c.Max.Y)
		}
	}
}

// line draws a line.
type line struct {
	points plotter.XYs
	colour color.Color
}

// Plot implements plot.Plotter.
func (l line) Plot(c drawing.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	var points []vg.Point
	for _, xy := range l.points {
		points = append(points, vg.Point{X: x(xy.X), Y: y(xy.Y)})
	}
	c.StrokeLines(drawing.LineStyle{Color: l.colour, Width: 0.9}, points)
}

// names says in the upper right corner which line is which.
type names []struct {
	name   string
	colour color.Color
}

// Plot implements plot.Plotter.
func (n names) Plot(c drawing.Canvas, _ *plot.Plot) {
	x := c.Max.X
	for _, entry := range n {
		face := sans(8.5, false)
		x -= face.Width(entry.name) + 8
		write(c, x, c.Max.Y-8, 8.5, entry.colour, true, entry.name)
	}
}

// dots draws each request.
type dots []request

// Plot implements plot.Plotter.
func (d dots) Plot(c drawing.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	for _, q := range d {
		style := drawing.GlyphStyle{Color: ofBlues[q.Generation%2], Radius: 1.5, Shape: drawing.CircleGlyph{}}
		switch {
		case q.Failed:
			style = drawing.GlyphStyle{Color: red, Radius: 3.5, Shape: drawing.CrossGlyph{}}
		case q.Rescued:
			style.Color, style.Radius = amber, 2.5
		}
		c.DrawGlyph(style, vg.Point{X: x(q.At), Y: y(visible(q.Latency))})
	}
}
