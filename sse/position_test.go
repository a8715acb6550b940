package sse_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/sse"
)

// TestParsePosition holds that each position has one spelling.
func TestParsePosition(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       sse.Position // zero if it is to be refused
	}{
		{"usual", "5t9k2.1842", sse.Position{Epoch: "5t9k2", Seq: 1842}},
		{"before the first", "e.0", sse.Position{Epoch: "e"}},
		{"digits", "007.1", sse.Position{Epoch: "007", Seq: 1}},
		{"last", "e.18446744073709551615", sse.Position{Epoch: "e", Seq: 1<<64 - 1}},
		{"longest epoch", strings.Repeat("e", 32) + ".1", sse.Position{Epoch: strings.Repeat("e", 32), Seq: 1}},
		{"epoch too long", strings.Repeat("e", 33) + ".1", sse.Position{}},
		{"too large", "e.18446744073709551616", sse.Position{}},
		{"empty", "", sse.Position{}},
		{"dot", ".", sse.Position{}},
		{"no epoch", ".1", sse.Position{}},
		{"no seq", "e.", sse.Position{}},
		{"no dot", "e1", sse.Position{}},
		{"two dots", "e.1.2", sse.Position{}},
		{"leading zero", "e.01", sse.Position{}},
		{"two zeros", "e.00", sse.Position{}},
		{"plus", "e.+1", sse.Position{}},
		{"minus", "e.-1", sse.Position{}},
		{"underscore", "e.1_0", sse.Position{}},
		{"hex", "e.0x1", sse.Position{}},
		{"space", "e.1 ", sse.Position{}},
		{"leading space", " e.1", sse.Position{}},
		{"upper case", "E.1", sse.Position{}},
		{"not ASCII", "é.1", sse.Position{}},
		{"other digits", "e.١", sse.Position{}},
		{"LF", "e.1\n", sse.Position{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := sse.ParsePosition(tc.text)
			if got != tc.want || (err == nil) == tc.want.IsZero() {
				t.Errorf("ParsePosition(%q) = %+v, %v", tc.text, got, err)
			}
			if err != nil && (!errors.Is(err, sse.ErrPosition) || len(err.Error()) > 400) {
				t.Errorf("the error is %v", err)
			}
			if err == nil && got.String() != tc.text {
				t.Errorf("%q prints as %q", tc.text, got)
			}
		})
	}
}

// FuzzPosition holds that parsing and printing are inverse, in text as in JSON.
func FuzzPosition(f *testing.F) {
	for _, text := range []string{"5t9k2.1842", "e.0", "e.01", ".1", "e.18446744073709551616", "E.1"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := sse.ParsePosition(text)
		if err != nil {
			if !p.IsZero() {
				t.Errorf("%q gives %+v and %v", text, p, err)
			}
			return
		}
		if p.String() != text {
			t.Errorf("%q prints as %q", text, p)
		}
		encoded, err := json.Marshal(p)
		var back sse.Position
		if err != nil || json.Unmarshal(encoded, &back) != nil || back != p {
			t.Errorf("%q is %s in JSON, and back %q; %v", text, encoded, back, err)
		}
	})
}

// TestNewEpoch holds that every new epoch can be parsed, has seven characters,
// and differs.
func TestNewEpoch(t *testing.T) {
	seen := make(map[string]bool)
	for range 10_000 { // one in 36 is padded
		e := sse.NewEpoch()
		if p, err := sse.ParsePosition(e + ".1"); err != nil || p.Epoch != e || len(e) != 7 {
			t.Fatalf("NewEpoch() = %q: %v", e, err)
		}
		if seen[e] {
			t.Errorf("%q again", e)
		}
		seen[e] = true
	}
}
