//go:build linux

package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// An outcome is what a measurement told: the text of its report, what is
// promised, and what to draw.
type outcome struct {
	text   string
	checks []check
	panels []panel
}

// add appends another outcome.
func (o *outcome) add(other outcome) {
	o.text += "\n" + strings.TrimSpace(other.text) + "\n"
	o.checks = append(o.checks, other.checks...)
	o.panels = append(o.panels, other.panels...)
}

// A check is a number that must not be exceeded by the median of its rounds.
type check struct {
	name   string
	limit  float64
	values []float64 // of the rounds, the lowest first
}

// newCheck takes from each round the number that is checked.
func newCheck[R any](name string, limit float64, rounds []R, value func(R) float64) check {
	return check{name, limit, values(rounds, value)}
}

func (c check) median() float64 { return c.values[(len(c.values)-1)/2] }

func (c check) missed() bool { return !(c.median() <= c.limit) } // NaN is no success

func (c check) verdict() string {
	if c.missed() {
		return "MISSED"
	}
	return "ok"
}

// reportChecks writes all checks as a table.
func reportChecks(checks []check) string {
	if len(checks) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("\n## What must hold\n\n")
	tableHead(&b, "", "at most", "median [lowest to highest]", "")
	for _, c := range checks {
		tableRow(&b, c.name, short(c.limit),
			fmt.Sprintf("%s [%s to %s]", short(c.median()), short(c.values[0]), short(c.values[len(c.values)-1])), c.verdict())
	}
	return b.String()
}

// short writes a ratio with its decimals, and a number of bytes without.
func short(v float64) string {
	if v >= 100 || v == float64(int(v)) {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

var errMissed = errors.New("missed")

// missed returns an error that names each check that does not hold.
func missed(checks []check) error {
	var all []error
	for _, c := range checks {
		if c.missed() {
			all = append(all, fmt.Errorf("%w: %s is %s, and must be at most %s", errMissed, c.name, short(c.median()), short(c.limit)))
		}
	}
	return errors.Join(all...)
}

// values returns what is to be known of all rounds, the lowest first.
func values[R any](rounds []R, value func(R) float64) []float64 {
	var found []float64
	for _, r := range rounds {
		found = append(found, value(r))
	}
	slices.Sort(found)
	return found
}

// median is the middle one, of an even number the lower of the two.
func median[R any](rounds []R, value func(R) float64) float64 {
	return values(rounds, value)[(len(rounds)-1)/2]
}

// spread is the median with the lowest and the highest.
func spread[R any](rounds []R, value func(R) float64) string {
	all := values(rounds, value)
	return fmt.Sprintf("%.2f [%.2f to %.2f]", median(rounds, value), all[0], all[len(all)-1])
}

func tableHead(b *strings.Builder, names ...string) {
	tableRow(b, names...)
	b.WriteString("|" + strings.Repeat(" --- |", len(names)) + "\n")
}

func tableRow(b *strings.Builder, cells ...string) {
	b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}
