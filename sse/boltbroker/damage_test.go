package boltbroker

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/caddy-sse/caddy-sse/sse"
)

// sampleFile makes a record with small and large entries, ids, ends, and pages
// that are free since the oldest entries were given up. It returns its bytes.
func sampleFile(t testing.TB) []byte {
	t.Helper()
	r := random(t)
	b := open(t, file(t), Options{})
	for i := range 40 {
		events := make([]sse.Event, 1+r.IntN(12))
		for j := range events {
			e := sse.Event{Channels: []string{fmt.Sprint("c", r.IntN(9))}, Data: strings.Repeat("x", r.IntN(300))}
			switch r.IntN(6) {
			case 0:
				e.ID = fmt.Sprintf("id-%d-%d", i, j)
			case 1:
				e.Channels, e.End = []string{fmt.Sprintf("done-%d-%d", i, j)}, sse.EndAfter
			}
			events[j] = e
		}
		if i%13 == 12 {
			events[0].Data = strings.Repeat("large", 4_000+r.IntN(16_000))
		}
		publishEvents(t, b, events...)
	}
	b.SetOptions(Options{MaxEvents: 170})
	eventually(t, "the oldest are given up", func() bool { return state(t, b).Oldest.Seq > 0 && idle(b) })
	for i := range 5 {
		publish(t, b, fmt.Sprint("last-", i))
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(b.path)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// idle reports whether nothing is to be given up now.
func idle(b *Broker) bool {
	b.mu.Lock()
	events := int(b.ledger.Head().Seq - b.oldest)
	fits := events <= b.options.MaxEvents
	b.mu.Unlock()
	if !fits {
		return false
	}
	first := uint64(0)
	err := b.view(func(tx *bbolt.Tx) error {
		if key, _ := tx.Bucket(bucketRecord).Cursor().First(); key != nil {
			first, _ = seqOf(key)
		}
		return nil
	})
	return err == nil && (first == 0 || first == b.oldestKept()+1)
}

func (b *Broker) oldestKept() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.oldest
}

// A digest takes in all that is in a file.
type digest struct {
	*contents
	all []byte
}

func (d *digest) element(bucket string, key, value []byte) error {
	for _, b := range [][]byte{d.all, []byte(bucket), key, value} {
		d.all = hash(d.all, b)
	}
	return d.contents.element(bucket, key, value)
}

func hash(parts ...[]byte) []byte {
	sum := sha256.New()
	for _, p := range parts {
		_, _ = fmt.Fprintf(sum, "%d:", len(p))
		_, _ = sum.Write(p)
	}
	return sum.Sum(nil)
}

// examine loads a file, as Open does, and sums up all that is in it.
func examine(file io.ReaderAt, size int64) (sum string, err error) {
	defer func() {
		if p := recover(); p != nil {
			sum, err = "", fmt.Errorf("PANIC: %v", p)
		}
	}()
	if _, err := loadFrom(file, size); err != nil {
		return "", err
	}
	d := &digest{contents: &contents{index: newIndex()}}
	if err := verify(file, size, d); err != nil {
		return "", err
	}
	return hex.EncodeToString(d.all), nil
}

// A vandal damages copies of a file.
type vandal struct {
	t        *testing.T
	original []byte
	sum      string
	refused  int
	harmless int
}

func newVandal(t *testing.T) *vandal {
	t.Helper()
	v := &vandal{t: t, original: sampleFile(t)}
	sum, err := examine(bytes.NewReader(v.original), int64(len(v.original)))
	if err != nil {
		t.Fatal(err)
	}
	v.sum = sum
	return v
}

// try examines a damaged file: it is refused, or what was damaged does not
// matter. Of the latter, some are opened and used.
func (v *vandal) try(what string, image []byte) {
	v.t.Helper()
	sum, err := examine(bytes.NewReader(image), int64(len(image)))
	switch {
	case err != nil && strings.HasPrefix(err.Error(), "PANIC"):
		v.t.Fatalf("%s: %v", what, err)
	case err != nil:
		v.refused++
		if v.refused%250 == 1 {
			v.refuse(what, image)
		}
	case sum != v.sum:
		v.t.Fatalf("%s: it is opened although something else is in it", what)
	default:
		v.harmless++
		if v.harmless%250 == 1 {
			v.use(what, image)
		}
	}
}

func (v *vandal) write(image []byte) string {
	v.t.Helper()
	path := filepath.Join(v.t.TempDir(), "record.db")
	if err := os.WriteFile(path, image, fileMode); err != nil {
		v.t.Fatal(err)
	}
	return path
}

// refuse expects that Open fails, says which file it is, and leaves it alone.
func (v *vandal) refuse(what string, image []byte) {
	v.t.Helper()
	path := v.write(image)
	_, err := Open(path, Options{})
	if err == nil || !strings.Contains(err.Error(), path) {
		v.t.Fatalf("%s: Open: %v", what, err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, image) {
		v.t.Fatalf("%s: the file has changed although it was refused: %v", what, err)
	}
}

// use expects that the record goes on as if nothing had happened.
func (v *vandal) use(what string, image []byte) {
	v.t.Helper()
	b := open(v.t, v.write(image), Options{})
	before := entries(v.t, b)
	publish(v.t, b, "more", strings.Repeat("m", 30_000))
	b.SetOptions(Options{MaxEvents: 100})
	eventually(v.t, "the oldest are given up", func() bool { return idle(b) })
	publish(v.t, b, "and more")
	got := entries(v.t, reopen(v.t, b, Options{}))
	if len(got) != 101 || !reflect.DeepEqual(got[:98], before[len(before)-98:]) || got[100].Event.Data != "and more" {
		v.t.Fatalf("%s: the record went astray", what)
	}
	if err := b.Close(); err != nil {
		v.t.Fatal(err)
	}
}

func (v *vandal) report(refused, harmless int) {
	v.t.Helper()
	v.t.Logf("%d bytes: %d were refused, %d were harmless", len(v.original), v.refused, v.harmless)
	if v.refused < refused || v.harmless < harmless {
		v.t.Errorf("want at least %d and %d", refused, harmless)
	}
}

// scaled is a number of random cases, which is larger in a long run.
func scaled(n int) int {
	if os.Getenv("SSE_LONG") != "" {
		return 20 * n
	}
	return n
}

// A bit that flips anywhere in the file is found when it is opened, or is one
// that nobody needs, such as in a page that is free.
func TestFlippedBits(t *testing.T) {
	v := newVandal(t)
	r := random(t)
	flip := func(at int, mask byte) {
		v.original[at] ^= mask
		v.try(fmt.Sprintf("byte %d xor %#x", at, mask), v.original)
		v.original[at] ^= mask
	}
	for range scaled(150) {
		flip(r.IntN(len(v.original)), 1<<r.IntN(8))
		flip(r.IntN(len(v.original)), byte(1+r.IntN(255)))
	}
	// What describes a page stands in front of it, without a checksum.
	pages := len(v.original) / os.Getpagesize()
	for range scaled(300) {
		flip(r.IntN(pages)*os.Getpagesize()+r.IntN(pageHeader+8*elementSize), 1<<r.IntN(8))
	}
	v.report(100, 30)
}

// How many elements a page has is tried bit by bit for all pages: a loss of the
// newest entries or ids leaves no gap behind by which it could be found.
func TestFlippedCounts(t *testing.T) {
	v := newVandal(t)
	for start := 0; start < len(v.original); start += os.Getpagesize() {
		for bit := range 16 {
			at := start + 10 + bit/8
			v.original[at] ^= 1 << (bit % 8)
			v.try(fmt.Sprintf("page %d, bit %d of its count", start/os.Getpagesize(), bit), v.original)
			v.original[at] ^= 1 << (bit % 8)
		}
	}
	v.report(16*8, 0)
}

// A file that ends early is refused.
func TestTruncatedFile(t *testing.T) {
	v := newVandal(t)
	r := random(t)
	for size := 0; size < len(v.original); size += os.Getpagesize() {
		v.try(fmt.Sprintf("cut to %d", size), v.original[:size])
		size := size + r.IntN(os.Getpagesize())
		v.try(fmt.Sprintf("cut to %d", size), v.original[:min(size, len(v.original))])
	}
	v.report(10, 0)
}

// A page that is empty, or that stands in another one's place, is found unless
// it is free.
func TestMovedPages(t *testing.T) {
	v := newVandal(t)
	r := random(t)
	size := os.Getpagesize()
	pages := len(v.original) / size
	page := func(image []byte, i int) []byte { return image[i*size : (i+1)*size] }
	for i := range pages {
		image := slices.Clone(v.original)
		clear(page(image, i))
		v.try(fmt.Sprintf("page %d is zero", i), image)
	}
	for range scaled(60) {
		i, j := r.IntN(pages), r.IntN(pages)
		image := slices.Clone(v.original)
		copy(page(image, i), page(v.original, j))
		v.try(fmt.Sprintf("page %d is a copy of %d", i, j), image)
		copy(page(image, j), page(v.original, i))
		v.try(fmt.Sprintf("pages %d and %d have changed places", i, j), image)
	}
	v.report(50, 10)
}

// What Open refuses as damaged says so, and what the operator can do.
func TestDamageIsExplained(t *testing.T) {
	v := newVandal(t)
	tests := []struct {
		name   string
		damage func([]byte) []byte
		want   []string
	}{
		// Half of the file may be more than is used.
		{"cut", func(b []byte) []byte { return b[:4*os.Getpagesize()] }, []string{"is damaged", "its end is missing", "restore it from a backup"}},
		{"one meta page", func(b []byte) []byte { return b[:os.Getpagesize()] }, []string{"is damaged", "meta page"}},
		{"a meta page", func(b []byte) []byte { b[pageHeader+20] ^= 1; return b }, []string{"is damaged", "meta page at byte 0"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := v.write(test.damage(slices.Clone(v.original)))
			_, err := Open(path, Options{})
			for _, want := range append(test.want, path) {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q", err, want)
				}
			}
			if errors.Is(err, errForeign) {
				t.Errorf("%v", err)
			}
		})
	}
}
