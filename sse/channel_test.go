package sse_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/sse"
)

var longest = strings.Repeat("x", sse.MaxChannel)

// TestValidateNames holds which channel names and patterns there are, and that
// an error quotes the name and tells the reason.
func TestValidateNames(t *testing.T) {
	for _, tc := range []struct {
		name          string
		text          string
		channel       bool
		pattern       bool
		channelReason string
	}{
		{"plain", "news", true, true, ""},
		{"punctuation", "a/b:c.d-e_f~g@h=i", true, true, ""},
		{"more punctuation", `!"$%&'()+;<>[\]^{|}` + "`", true, true, ""},
		{"not ASCII", "über/日本/🎈", true, true, ""},
		{"replacement character", "\ufffd", true, true, ""},
		{"longest", longest, true, true, ""},
		{"longest pattern", longest + "*", false, true, "256 bytes, 255 at most"},
		{"too long", longest + "x", false, false, "256 bytes, 255 at most"},
		{"pattern too long", longest + "x*", false, false, "257 bytes"},
		{"empty", "", false, false, "empty"},
		{"everything", "*", false, true, `'*'`},
		{"prefix", "stocks-*", false, true, `'*'`},
		{"* in the middle", "a*b", false, false, `'*'`},
		{"two *", "a**", false, false, `'*'`},
		{"only two *", "**", false, false, `'*'`},
		{"* twice", "*a*", false, false, `'*'`},
		{"space", "a b", false, false, `' '`},
		{"pattern with space", "a b*", false, false, `' '`},
		{"no-break space", "a\u00a0b", false, false, `'\u00a0'`},
		{"comma", "a,b", false, false, `','`},
		{"question mark", "a?b", false, false, `'?'`},
		{"hash", "a#b", false, false, `'#'`},
		{"NUL", "a\x00", false, false, `'\x00'`},
		{"LF", "a\nb", false, false, `'\n'`},
		{"CR", "a\rb", false, false, `'\r'`},
		{"tab", "\ta", false, false, `'\t'`},
		{"DEL", "\x7f", false, false, `'\x7f'`},
		{"C1 control", "\u0085", false, false, `'\u0085'`},
		{"not UTF-8", "a\xff", false, false, "UTF-8"},
		{"half a rune", "a\xc3", false, false, "UTF-8"},
		{"half a rune before *", "a\xc3*", false, false, "UTF-8"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			check := func(what string, err error, want bool) {
				if (err == nil) != want {
					t.Errorf("%s(%q) = %v, want valid: %v", what, tc.text, err, want)
				}
				if err != nil && !errors.Is(err, sse.ErrChannel) {
					t.Errorf("%s: %v does not match ErrChannel", what, err)
				}
			}
			err := sse.ValidateChannel(tc.text)
			check("ValidateChannel", err, tc.channel)
			if err != nil && !strings.Contains(err.Error(), tc.channelReason) {
				t.Errorf("%v does not tell %s", err, tc.channelReason)
			}
			if err != nil && len(err.Error()) > 400 {
				t.Errorf("the message has %d bytes", len(err.Error()))
			}
			check("ValidatePattern", sse.ValidatePattern(tc.text), tc.pattern)
		})
	}
}

// TestCovers holds what an allow list grants.
func TestCovers(t *testing.T) {
	for _, tc := range []struct {
		granted, asked string
		want           bool
	}{
		{"a", "a", true},
		{"a", "b", false},
		{"a", "ab", false},
		{"a", "a*", false},
		{"ab", "a*", false},
		{"a*", "a", true},
		{"a*", "abc", true},
		{"a*", "a*", true},
		{"a*", "ab*", true},
		{"a*", "b", false},
		{"a*", "*", false},
		{"a*", "A", false},
		{"ab*", "a", false},
		{"ab*", "a*", false},
		{"*", "a", true},
		{"*", "*", true},
		{"*", "a*", true},
	} {
		t.Run(tc.granted+" "+tc.asked, func(t *testing.T) {
			if got := sse.Covers(tc.granted, tc.asked); got != tc.want {
				t.Errorf("Covers(%q, %q) = %v", tc.granted, tc.asked, got)
			}
		})
	}
}

// matches says what a pattern stands for, in another way than the code does.
func matches(pattern, name string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return len(name) >= len(prefix) && name[:len(prefix)] == prefix
	}
	return name == pattern
}

// FuzzPattern holds that what is granted covers what is asked exactly if every
// name that matches the one matches the other.
func FuzzPattern(f *testing.F) {
	f.Add("a*", "ab*", uint64(1))
	f.Add("a", "a*", uint64(2))
	f.Add("*", "ü*", uint64(3))
	f.Add("ab*", "a*", uint64(4))
	f.Fuzz(func(t *testing.T, granted, asked string, seed uint64) {
		if sse.ValidatePattern(granted) != nil || sse.ValidatePattern(asked) != nil {
			return
		}
		r := rand.New(rand.NewPCG(seed, 0))
		covers := sse.Covers(granted, asked)
		prefix, isPattern := strings.CutSuffix(asked, "*")
		outside := false
		for range 20 {
			name := prefix
			for range r.IntN(5) {
				if isPattern {
					name += string(rune('a' + r.IntN(26)))
				}
			}
			if sse.ValidateChannel(name) != nil {
				continue
			}
			if !matches(asked, name) {
				t.Fatalf("%q does not match %q", name, asked)
			}
			if sse.Covers(asked, name) != matches(asked, name) || sse.Covers(granted, name) != matches(granted, name) {
				t.Errorf("Covers and matching differ for %q, %q and %q", granted, asked, name)
			}
			outside = outside || !matches(granted, name)
		}
		if covers && outside {
			t.Errorf("Covers(%q, %q), but not all names", granted, asked)
		}
		if covers && sse.Covers(asked, granted) && granted != asked {
			t.Errorf("%q and %q cover each other", granted, asked)
		}
	})
}
