package sse_test

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

func ExampleDecoder() {
	d := sse.NewDecoder(strings.NewReader("id: 7\nevent: price\ndata: 101.5\n\n"))
	for {
		m, err := d.Decode()
		if err == io.EOF {
			break
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(m.Event, m.Data, m.ID)
	}
	// Output: price 101.5 7
}

// decoded is all that reading a stream to its end shows.
type decoded struct {
	messages []sse.Message
	comments []string
	lastID   string
	retry    time.Duration
	hasRetry bool
	err      error
}

// decodeAll reads r until its error; a limit of zero is the default.
func decodeAll(r io.Reader, limit int) decoded {
	var got decoded
	d := sse.NewDecoder(r)
	d.SetLimit(limit)
	d.OnComment(func(text string) { got.comments = append(got.comments, text) })
	for {
		m, err := d.Decode()
		if err != nil {
			got.err = err
			break
		}
		got.messages = append(got.messages, m)
	}
	got.lastID = d.LastEventID()
	got.retry, got.hasRetry = d.Retry()
	return got
}

// diffDecoded says where two readings differ, or nothing. Errors are compared
// by their text.
func diffDecoded(got, want decoded) string {
	switch {
	case !slices.Equal(got.messages, want.messages):
		return fmt.Sprintf("messages %q, want %q", got.messages, want.messages)
	case !slices.Equal(got.comments, want.comments):
		return fmt.Sprintf("comments %q, want %q", got.comments, want.comments)
	case got.lastID != want.lastID:
		return fmt.Sprintf("last event ID %q, want %q", got.lastID, want.lastID)
	case got.retry != want.retry || got.hasRetry != want.hasRetry:
		return fmt.Sprintf("retry %v %v, want %v %v", got.retry, got.hasRetry, want.retry, want.hasRetry)
	case fmt.Sprint(got.err) != fmt.Sprint(want.err):
		return fmt.Sprintf("error %v, want %v", got.err, want.err)
	}
	return ""
}

// chunkings are ways to cut one input into reads. None may change the outcome.
var chunkings = []struct {
	name string
	read func(string) io.Reader
}{
	{"whole", func(s string) io.Reader { return strings.NewReader(s) }},
	{"bytes", func(s string) io.Reader { return iotest.OneByteReader(strings.NewReader(s)) }},
	{"halves", func(s string) io.Reader { return iotest.HalfReader(strings.NewReader(s)) }},
	{"error with data", func(s string) io.Reader { return iotest.DataErrReader(strings.NewReader(s)) }},
	{"bytes, error with data", func(s string) io.Reader {
		return iotest.DataErrReader(iotest.OneByteReader(strings.NewReader(s)))
	}},
}

// message is a message without an id, of the default name.
func message(data string) sse.Message { return sse.Message{Event: "message", Data: data} }

func messages(data ...string) []sse.Message {
	var all []sse.Message
	for _, text := range data {
		all = append(all, message(text))
	}
	return all
}

// formatCases cover the ground of the format-* tests that web-platform-tests
// has for EventSource (named "format-…"), and what the standard says besides.
var formatCases = []struct {
	name  string
	input string
	want  decoded // err is io.EOF in all
}{
	{name: "empty", input: ""},
	{name: "format-bom: one is dropped", input: "\uFEFFdata: a\n\ndata: b\n\n", want: decoded{messages: messages("a", "b")}},
	{name: "format-bom: only at the start", input: "data: a\n\n\uFEFFdata: b\n\ndata: c\n\n", want: decoded{messages: messages("a", "c")}},
	{name: "format-bom-2: a second one is text", input: "\uFEFF\uFEFFdata: a\n\ndata: b\n\n", want: decoded{messages: messages("b")}},
	{name: "BOM on a blank line", input: "\uFEFF\n\uFEFF\ndata: a\n\n", want: decoded{messages: messages("a")}},
	{name: "part of a BOM", input: "\xEF\xBBdata: a\n\ndata: b\n\n", want: decoded{messages: messages("b")}},
	{
		name:  "format-comments",
		input: ":\n: spaced\n:  twice\n:plain:\x00\r:data: no\ndata: a\n:" + strings.Repeat("y", 5000) + "\ndata: b\n\n:after\n",
		want: decoded{
			messages: messages("a\nb"),
			comments: []string{"", "spaced", " twice", "plain:\x00", "data: no", strings.Repeat("y", 5000), "after"},
		},
	},
	{name: "comment without its line end", input: "data: a\n\n:cut", want: decoded{messages: messages("a")}},
	{
		name:  "format-data-before-final-empty-line",
		input: "retry: 200\ndata: a\n\nid: lost\ndata: b\n",
		want:  decoded{messages: messages("a"), retry: 200 * time.Millisecond, hasRetry: true},
	},
	{name: "last line without its end", input: "id: 1\ndata: a\n\nretry: 5", want: decoded{
		messages: []sse.Message{{ID: "1", Event: "message", Data: "a"}}, lastID: "1",
	}},
	{
		name:  "format-field-data",
		input: "data:\n\ndata\ndata\n\ndata: a\n\ndata\ndata: b\n\ndata: c\ndata:\n\n",
		want:  decoded{messages: messages("", "\n", "a", "\nb", "c\n")},
	},
	{name: "block without data", input: "event: a\n\ndata: b\n\n\n\n", want: decoded{messages: messages("b")}},
	{
		name:  "format-field-event: only for its block",
		input: "event: a\ndata: 1\n\ndata: 2\n\nevent: a\ndata: 3\n\n",
		want: decoded{messages: []sse.Message{
			{Event: "a", Data: "1"}, {Event: "message", Data: "2"}, {Event: "a", Data: "3"},
		}},
	},
	{name: "last event line wins", input: "event: a\ndata: 1\nevent: b\n\n", want: decoded{messages: []sse.Message{{Event: "b", Data: "1"}}}},
	{name: "format-field-event-empty", input: "event: a\nevent:\ndata: 1\n\nevent\ndata: 2\n\n", want: decoded{messages: messages("1", "2")}},
	{name: "format-field-id: lasts", input: "id: … 1\ndata: a\n\ndata: b\n\n", want: decoded{
		messages: []sse.Message{{ID: "… 1", Event: "message", Data: "a"}, {ID: "… 1", Event: "message", Data: "b"}},
		lastID:   "… 1",
	}},
	{name: "format-field-id-2: empty resets", input: "id: 1\ndata: a\n\nid\ndata: b\n\ndata: c\n\n", want: decoded{
		messages: []sse.Message{{ID: "1", Event: "message", Data: "a"}, message("b"), message("c")},
	}},
	{name: "format-field-id-3: block without data", input: "id: 1\n\ndata: a\n\nid: 2\n\n", want: decoded{
		messages: []sse.Message{{ID: "1", Event: "message", Data: "a"}}, lastID: "2",
	}},
	{name: "format-field-id-null", input: "id: 1\nid: 2\x003\ndata: a\n\nid: \x00\ndata: b\n\n", want: decoded{
		messages: []sse.Message{{ID: "1", Event: "message", Data: "a"}, {ID: "1", Event: "message", Data: "b"}},
		lastID:   "1",
	}},
	{name: "last id line wins", input: "id: 1\ndata: a\nid: 2\n\n", want: decoded{
		messages: []sse.Message{{ID: "2", Event: "message", Data: "a"}}, lastID: "2",
	}},
	{
		name:  "format-field-parsing",
		input: "data:\x00\ndata:  b\rData: no\n data: no\ndata : no\ndata:c\n\x00data:no\r\ndatax:no\ndata::d\ndata\n\n",
		want:  decoded{messages: messages("\x00\n b\nc\n:d\n")},
	},
	{name: "format-field-retry", input: "retry: 0250\ndata: a\n\n", want: decoded{
		messages: messages("a"), retry: 250 * time.Millisecond, hasRetry: true,
	}},
	{
		name:  "format-field-retry-bogus",
		input: "retry: 250\nretry: 90x\nretry: -1\nretry: +1\nretry: 1.5\nretry:  1\nretry: 1 \nretry: 0x1\nretry: \uFF11\n",
		want:  decoded{retry: 250 * time.Millisecond, hasRetry: true},
	},
	{name: "format-field-retry-empty", input: "retry: 250\nretry\nretry:\nretry: \n", want: decoded{retry: 250 * time.Millisecond, hasRetry: true}},
	{name: "no retry", input: "retry: soon\n", want: decoded{}},
	{name: "retry of zero", input: "retry: 0\n", want: decoded{hasRetry: true}},
	{name: "retry too large for a Duration", input: "retry: " + strings.Repeat("9", 400) + "\n", want: decoded{
		retry: math.MaxInt64 / time.Millisecond * time.Millisecond, hasRetry: true,
	}},
	{name: "format-field-unknown", input: "data: a\n data\ndata: b\nfoo: no\njust words\ndatas\n\n", want: decoded{messages: messages("a\nb")}},
	{name: "format-leading-space", input: "data:\ta\rdata: \ndata:b\ndata:  c\n\n", want: decoded{messages: messages("\ta\n\nb\n c")}},
	{name: "format-newlines", input: "data: a\r\ndata: b\ndata\rdata: c\r\n\r", want: decoded{messages: messages("a\nb\n\nc")}},
	{
		name:  "every line end is a line end",
		input: "data: a\r\rdata: b\n\ndata: c\r\n\r\ndata: d\n\r\ndata: e\r\n\ndata: f\n\rdata: g\r\r\n",
		want:  decoded{messages: messages("a", "b", "c", "d", "e", "f", "g")},
	},
	{name: "other separators are text", input: "data: a\vb\fc\u0085d\u2028e\n\n", want: decoded{messages: messages("a\vb\fc\u0085d\u2028e")}},
	{name: "format-null-character", input: "data: \x00\n\n\n\n", want: decoded{messages: messages("\x00")}},
	{name: "format-utf-8", input: "data: grüße, 世界 🎉 \uFFFD\n\n", want: decoded{messages: messages("grüße, 世界 🎉 \uFFFD")}},
	{
		name:  "ill-formed UTF-8 in every field",
		input: "id: \xFF\nevent: \xE2\x82\ndata: \xC0\xAF\n: \x80\n\ndata: a\n\n",
		want: decoded{
			messages: []sse.Message{{ID: "\uFFFD", Event: "\uFFFD", Data: "\uFFFD\uFFFD"}, {ID: "\uFFFD", Event: "message", Data: "a"}},
			comments: []string{"\uFFFD"}, lastID: "\uFFFD",
		},
	},
	{name: "a long line, longer than the buffer", input: "data: " + strings.Repeat("z", 20_000) + "\n\n", want: decoded{
		messages: messages(strings.Repeat("z", 20_000)),
	}},
}

func TestDecoderFormat(t *testing.T) {
	for _, tc := range formatCases {
		t.Run(tc.name, func(t *testing.T) {
			tc.want.err = io.EOF
			for _, c := range chunkings {
				if diff := diffDecoded(decodeAll(c.read(tc.input), 0), tc.want); diff != "" {
					t.Errorf("read as %s: %s", c.name, diff)
				}
			}
		})
	}
}

// TestDecoderUTF8 checks how many U+FFFD there are. The inputs and results are
// those of tables 3-8 to 3-11 in chapter 3 of the Unicode Standard, where "?"
// stands for U+FFFD.
func TestDecoderUTF8(t *testing.T) {
	for _, tc := range []struct{ name, input, want string }{
		{"overlong", "\xC0\xAF\xE0\x80\xBF\xF0\x81\x82A", "????????A"},
		{"surrogates", "\xED\xA0\x80\xED\xBF\xBF\xED\xAFA", "????????A"},
		{"out of range", "\xF4\x91\x92\x93\xFFA\x80\xBFB", "?????A??B"},
		{"truncated", "\xE1\x80\xE2\xF0\x91\x92\xF1\xBFA", "????A"},
		{"truncated at the end of the line", "A\xF0\x9F\x8E", "A?"},
		{"truncated, then whole", "\xE2\x82€", "?€"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := decoded{messages: messages(strings.ReplaceAll(tc.want, "?", "\uFFFD")), err: io.EOF}
			for _, c := range chunkings {
				if diff := diffDecoded(decodeAll(c.read("data:"+tc.input+"\n\n"), 0), want); diff != "" {
					t.Errorf("read as %s: %s", c.name, diff)
				}
			}
		})
	}
}

// TestDecoderDoesNotWait feeds a pipe up to the byte that completes a message
// and no further: should Decode want more, the bubble deadlocks.
func TestDecoderDoesNotWait(t *testing.T) {
	for _, tc := range []struct{ name, first, second string }{
		{"LF", "data: a\n\n", "data: b\n\n"},
		{"CR", "data: a\r\r", "data: b\r\r"},
		{"CRLF, cut in the blank line", "data: a\r\n\r", "\ndata: b\r\n\r"},
		{"mixed", "data: a\n\r", "\ndata: b\r\n\n"},
		{"after a byte order mark", "\uFEFFdata: a\n\n", "data: b\n\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, w := io.Pipe()
				defer w.Close()
				d := sse.NewDecoder(r)
				for _, step := range []struct{ input, want string }{{tc.first, "a"}, {tc.second, "b"}} {
					go io.WriteString(w, step.input)
					if m, err := d.Decode(); err != nil || m != message(step.want) {
						t.Fatalf("after %q: got %q, %v", step.input, m, err)
					}
					synctest.Wait() // for the write to return
				}
			})
		})
	}
}

func TestDecoderErrors(t *testing.T) {
	broken := errors.New("broken")
	for _, tc := range []struct {
		name  string
		r     io.Reader
		limit int
		want  error
	}{
		{"end of stream", strings.NewReader("data: a\n\ndata: b"), 0, io.EOF},
		{"broken stream", io.MultiReader(strings.NewReader("data: a\n\ndata: b"), iotest.ErrReader(broken)), 0, broken},
		{"end amid HTTP chunks", io.MultiReader(strings.NewReader("data: a\n\n"), iotest.ErrReader(io.ErrUnexpectedEOF)), 0, io.ErrUnexpectedEOF},
		{"too long", strings.NewReader("data: a\n\ndata: abcdef\n\ndata: c\n\n"), 10, sse.ErrTooLong},
		{"reader that gives nothing", io.MultiReader(strings.NewReader("data: a\n\n"), idleReader{}), 0, io.ErrNoProgress},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := sse.NewDecoder(tc.r)
			d.SetLimit(tc.limit)
			if m, err := d.Decode(); err != nil || m != message("a") {
				t.Fatalf("got %q, %v before the error", m, err)
			}
			_, first := d.Decode()
			if !errors.Is(first, tc.want) {
				t.Errorf("got error %v, want %v", first, tc.want)
			}
			if tc.want == io.EOF && first != io.EOF {
				t.Errorf("io.EOF must come bare, got %v", first)
			}
			for range 3 {
				if m, err := d.Decode(); err != first || m != (sse.Message{}) {
					t.Errorf("after the error: got %q, %v", m, err)
				}
			}
		})
	}
}

type idleReader struct{}

func (idleReader) Read([]byte) (int, error) { return 0, nil }

func TestDecoderLimit(t *testing.T) {
	const limit = 20
	long := func(n int) string { return strings.Repeat("x", n) }
	for _, tc := range []struct {
		name, input string
		want        []sse.Message
		tooLong     bool
	}{
		{name: "one line, just fits", input: "data:" + long(14) + "\n\n", want: messages(long(14))},
		{name: "one line too long", input: "data:" + long(15) + "\n\n", tooLong: true},
		{name: "line end makes it too long", input: "data:" + long(15) + "\n", tooLong: true},
		{name: "unfinished, just fits", input: "data:" + long(15)},
		{name: "unfinished, too long", input: "data:" + long(16), tooLong: true},
		{name: "lines add up, just fit", input: "data:12\nid:4\nevent:\n\n", want: []sse.Message{{ID: "4", Event: "message", Data: "12"}}},
		{name: "lines add up", input: "data:12\nid:45\nevent:\n\n", tooLong: true},
		{name: "unknown fields count", input: "foo\nfoo\nfoo\nfoo\nfoo\nfoo\n", tooLong: true},
		{name: "empty data lines", input: strings.Repeat("data\n", 5), tooLong: true},
		{name: "CRLF counts one", input: "data:" + long(14) + "\r\n\r\n", want: messages(long(14))},
		{name: "comments do not add up", input: strings.Repeat(": keepalive\n", 50) + "data:a\n\n", want: messages("a")},
		{name: "comment too long", input: ":" + long(20) + "\n\n", tooLong: true},
		{name: "each block anew", input: strings.Repeat("data:1234567890\n\n", 5), want: slices.Repeat(messages("1234567890"), 5)},
		{name: "messages before it", input: "data:a\n\ndata:" + long(30) + "\n\ndata:b\n\n", want: messages("a"), tooLong: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, c := range chunkings {
				got := decodeAll(c.read(tc.input), limit)
				if !slices.Equal(got.messages, tc.want) {
					t.Errorf("read as %s: got %q, want %q", c.name, got.messages, tc.want)
				}
				if errors.Is(got.err, sse.ErrTooLong) != tc.tooLong || !tc.tooLong && got.err != io.EOF {
					t.Errorf("read as %s: got error %v", c.name, got.err)
				}
				if tc.tooLong && !strings.Contains(got.err.Error(), "20 bytes") {
					t.Errorf("read as %s: error %q does not say the limit", c.name, got.err)
				}
			}
		})
	}
}

func TestDecoderLimitDefaults(t *testing.T) {
	for _, tc := range []struct {
		name  string
		limit int
		data  int // length; its line has 6 bytes more
		want  error
	}{
		{"zero is the default, just fits", 0, sse.DefaultDecodeLimit - 6, nil},
		{"zero is the default, too long", 0, sse.DefaultDecodeLimit - 5, sse.ErrTooLong},
		{"negative is none", -1, sse.DefaultDecodeLimit, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := sse.NewDecoder(strings.NewReader("data:" + strings.Repeat("x", tc.data) + "\n\n"))
			d.SetLimit(tc.limit)
			m, err := d.Decode()
			if !errors.Is(err, tc.want) {
				t.Fatalf("got error %v, want %v", err, tc.want)
			}
			if err == nil && len(m.Data) != tc.data {
				t.Errorf("got %d bytes, want %d", len(m.Data), tc.data)
			}
		})
	}
}

// loopReader gives the same bytes over and over.
type loopReader struct {
	text string
	at   int
}

func (r *loopReader) Read(p []byte) (int, error) {
	n := copy(p, r.text[r.at:])
	r.at = (r.at + n) % len(r.text)
	return n, nil
}

func TestDecoderAllocs(t *testing.T) {
	for _, tc := range []struct {
		name, input string
		want        float64 // a message
	}{
		{"data", "data: abc\n\n", 1},
		{"data and event", "event: price\ndata: abc\n\n", 1},
		{"data, event, same id", "event: price\nid: 1\ndata: abc\n\n", 1},
		{"data and new ids", "id: 1.2\ndata: abc\n\nid: 1.3\ndata: abc\n\n", 2},
		{"many lines", strings.Repeat("data: abc\r\n", 100) + "\r\n", 1},
		{"comments and empty data", ": keepalive\n\nretry: 1\ndata\n\n", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := sse.NewDecoder(&loopReader{text: tc.input})
			got := testing.AllocsPerRun(100, func() {
				if _, err := d.Decode(); err != nil {
					t.Fatal(err)
				}
			})
			if got != tc.want {
				t.Errorf("got %v allocations, want %v", got, tc.want)
			}
		})
	}
}

func BenchmarkDecoder(b *testing.B) {
	for _, size := range []int{64, 1 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("data=%d", size), func(b *testing.B) {
			text := "id: 5t9k2.1843\nevent: price\ndata: " + strings.Repeat("x", size) + "\n\n"
			d := sse.NewDecoder(&loopReader{text: text})
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := d.Decode(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
