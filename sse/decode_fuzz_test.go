package sse_test

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/caddy-sse/caddy-sse/sse"
)

// FuzzDecoder holds the decoder against two oracles: itself, reading the same
// bytes at once, and a parser that follows the standard's text to the letter.
// The first runs under the given limit too, which must strike at the same place.
func FuzzDecoder(f *testing.F) {
	for _, tc := range formatCases {
		f.Add([]byte(tc.input), []byte{1}, uint16(0))
	}
	for _, input := range []string{
		"\xEF\xBB\xBFdata: a\r\n\r\ndata: b\r\rdata: c\n\r\n",
		"\xEF\xBB\xBF\xEF\xBB\xBFdata\n\n",
		"id: 1\nevent: \xED\xA0\x80\ndata: \xF4\x91\x92\x93\xFFA\x80\xBF\n\xE2\ndata\n\n",
		"retry: 9223372036854775808\nretry: 9223372036854\nretry: 9223372036855\nid: \x00\n: \xF0\x9F\n\n",
		": a comment that is longer than the limit\n\n",
		"data:" + strings.Repeat("x", 5000) + "\n\nid:2\n\n",
	} {
		f.Add([]byte(input), []byte{2, 1, 7, 0}, uint16(30))
	}
	f.Fuzz(func(t *testing.T, input, sizes []byte, limit uint16) {
		whole := decodeAll(strings.NewReader(string(input)), 0)
		if diff := diffDecoded(whole, decodeBySpec(input)); diff != "" {
			t.Errorf("against the standard: %s", diff)
		}
		if diff := diffDecoded(decodeAll(&chunkReader{rest: input, sizes: sizes}, 0), whole); diff != "" {
			t.Errorf("chunked against whole: %s", diff)
		}
		if limit == 0 {
			return
		}
		limited := decodeAll(strings.NewReader(string(input)), int(limit))
		if diff := diffDecoded(decodeAll(&chunkReader{rest: input, sizes: sizes}, int(limit)), limited); diff != "" {
			t.Errorf("chunked against whole, limit %d: %s", limit, diff)
		}
		if n := len(limited.messages); n > len(whole.messages) || !slices.Equal(limited.messages, whole.messages[:n]) {
			t.Errorf("limit %d: got %q, which does not begin %q", limit, limited.messages, whole.messages)
		}
	})
}

// chunkReader reads in chunks of the given sizes, over and over. Every other
// time around it answers a size of zero with (0, nil), as a reader may, else
// it counts as one.
type chunkReader struct {
	rest  []byte
	sizes []byte
	at    int
}

func (r *chunkReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	size := 1
	if len(r.sizes) > 0 {
		round := r.at / len(r.sizes)
		size = int(r.sizes[r.at%len(r.sizes)])
		r.at++
		if size == 0 && (round%2 == 0 || len(r.sizes) > 50) {
			size = 1 // so that the decoder does not give up on a run of nothing
		}
	}
	n := copy(p[:min(size, len(p))], r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// decodeBySpec is section 9.2.6 of the HTML standard, sentence by sentence and
// without a thought for cost.
func decodeBySpec(input []byte) decoded {
	got := decoded{err: io.EOF}
	var data, eventType, lastEventID string // the buffers

	stream := strings.TrimPrefix(utf8DecodeBySpec(input), "\uFEFF")
	stream = strings.ReplaceAll(stream, "\r\n", "\n")
	stream = strings.ReplaceAll(stream, "\r", "\n")
	lines := strings.Split(stream, "\n")
	for _, line := range lines[:len(lines)-1] { // the last has no end: not a line
		field, value, colon := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			got.lastID = lastEventID
			if data == "" {
				eventType = ""
				continue
			}
			m := sse.Message{ID: got.lastID, Event: "message", Data: strings.TrimSuffix(data, "\n")}
			if eventType != "" {
				m.Event = eventType
			}
			got.messages = append(got.messages, m)
			data, eventType = "", ""
		case colon && field == "":
			got.comments = append(got.comments, value)
		case field == "event":
			eventType = value
		case field == "data":
			data += value + "\n"
		case field == "id" && !strings.Contains(value, "\x00"):
			lastEventID = value
		case field == "retry" && value != "" && strings.Trim(value, "0123456789") == "":
			ms, _ := strconv.ParseInt(value, 10, 64) // the most there is, if out of range
			got.retry = time.Duration(min(ms, math.MaxInt64/1_000_000)) * time.Millisecond
			got.hasRetry = true
		}
	}
	return got
}

// utf8DecodeBySpec is the UTF-8 decoder of the Encoding standard, a state
// machine that takes a byte at a time.
func utf8DecodeBySpec(input []byte) string {
	var out strings.Builder
	var point rune
	seen, needed := 0, 0
	lower, upper := byte(0x80), byte(0xBF)
	for i := 0; i < len(input); i++ {
		c := input[i]
		if needed == 0 {
			switch {
			case c <= 0x7F:
				out.WriteByte(c)
			case 0xC2 <= c && c <= 0xDF:
				needed, point = 1, rune(c&0x1F)
			case 0xE0 <= c && c <= 0xEF:
				if c == 0xE0 {
					lower = 0xA0
				}
				if c == 0xED {
					upper = 0x9F
				}
				needed, point = 2, rune(c&0xF)
			case 0xF0 <= c && c <= 0xF4:
				if c == 0xF0 {
					lower = 0x90
				}
				if c == 0xF4 {
					upper = 0x8F
				}
				needed, point = 3, rune(c&0x7)
			default:
				out.WriteRune(utf8.RuneError)
			}
			continue
		}
		inRange := lower <= c && c <= upper
		lower, upper = 0x80, 0xBF
		if !inRange {
			point, needed, seen = 0, 0, 0
			i-- // "restore byte to ioQueue"
			out.WriteRune(utf8.RuneError)
			continue
		}
		point = point<<6 | rune(c&0x3F)
		if seen++; seen == needed {
			out.WriteRune(point)
			point, needed, seen = 0, 0, 0
		}
	}
	if needed > 0 {
		out.WriteRune(utf8.RuneError)
	}
	return out.String()
}

// TestDecodeBySpec keeps the oracle honest: it must pass the same table.
func TestDecodeBySpec(t *testing.T) {
	for _, tc := range formatCases {
		t.Run(tc.name, func(t *testing.T) {
			tc.want.err = io.EOF
			if diff := diffDecoded(decodeBySpec([]byte(tc.input)), tc.want); diff != "" {
				t.Errorf("oracle: %s", diff)
			}
		})
	}
	if got, want := fmt.Sprintf("%+q", utf8DecodeBySpec([]byte("a\xE2\x82b\xF0\x9F\x8E\x89"))), `"a\ufffdb\U0001f389"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
