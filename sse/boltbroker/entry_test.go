package boltbroker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// sampleEntries use every field, at its bounds too.
func sampleEntries() []sse.Entry {
	at := func(seq uint64, e sse.Event) sse.Entry {
		return sse.Entry{Position: sse.Position{Epoch: "e", Seq: seq}, Time: time.Unix(1_700_000_000, 123_456_789), Event: e}
	}
	many := make([]string, sse.MaxEventChannels)
	for i := range many {
		many[i] = fmt.Sprint("channel-", i)
	}
	return []sse.Entry{
		at(1, sse.Event{Channels: []string{"a"}}),
		at(2, sse.Event{Channels: []string{"a", "b/ä"}, Name: "update", Data: "line\nline\n", Retry: 1500 * time.Millisecond}),
		at(1<<40, sse.Event{Channels: many, Name: strings.Repeat("n", sse.MaxName), Data: strings.Repeat("x", 100_000), Retry: sse.MaxRetry, End: sse.EndAfter}),
		at(1<<64-1, sse.Event{Channels: []string{strings.Repeat("c", sse.MaxChannel)}, End: sse.EndOnly}),
	}
}

// An entry is read back as it was stored, but for the publisher's id, of which
// only a hash is kept, in a bucket of its own.
func TestEntryRoundTrip(t *testing.T) {
	for _, want := range sampleEntries() {
		key := keyOf(want.Position.Seq)
		before := []byte("something in front of it")
		value := appendEntry(before, key, &want)[len(before):]
		got, err := decodeEntry("e", key, value)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		clear(value)
		if !reflect.DeepEqual(got, want) {
			t.Error("the entry shares memory with what it was read from")
		}
	}
}

// An id is read back as it was stored.
func TestRepeatRoundTrip(t *testing.T) {
	want := sse.Repeat{Key: sse.KeyOf("order-1"), Seq: 1 << 50, Time: time.Unix(1_700_000_000, 1)}
	key := keyOf(want.Seq)
	got, err := decodeRepeat(key, appendRepeat(nil, key, want.Key, want.Time))
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

// Keys sort as their seqs do.
func TestKeysSort(t *testing.T) {
	seqs := []uint64{0, 1, 255, 256, 1 << 32, 1<<64 - 1}
	if !slices.IsSortedFunc(seqs, func(a, b uint64) int { return slices.Compare(keyOf(a), keyOf(b)) }) {
		t.Error("not sorted")
	}
	if _, err := seqOf([]byte("short")); err == nil {
		t.Error("a key of five bytes has a seq")
	}
}

// A single bit that flips is found, wherever it is: in the key, the value or
// the checksum. So is an end that is missing.
func TestFlippedBitsAreFound(t *testing.T) {
	e := sampleEntries()[1]
	key := keyOf(e.Position.Seq)
	kinds := []struct {
		name   string
		value  []byte
		decode func(key, value []byte) error
	}{
		{"entry", appendEntry(nil, key, &e), func(key, value []byte) error { _, err := decodeEntry("e", key, value); return err }},
		{"id", appendRepeat(nil, key, sse.KeyOf("id"), e.Time), func(key, value []byte) error { _, err := decodeRepeat(key, value); return err }},
		{"meta", seal([]byte("value"), 0, key), func(key, value []byte) error { _, err := unseal(key, value); return err }},
	}
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			both := append(slices.Clone(key), kind.value...)
			for bit := range len(both) * 8 {
				flipped := slices.Clone(both)
				flipped[bit/8] ^= 1 << (bit % 8)
				if err := kind.decode(flipped[:8], flipped[8:]); !errors.Is(err, errChecksum) {
					t.Fatalf("bit %d: %v", bit, err)
				}
			}
			for size := range kind.value {
				if err := kind.decode(key, kind.value[:size]); !errors.Is(err, errChecksum) {
					t.Fatalf("%d bytes: %v", size, err)
				}
			}
		})
	}
}

// What has a right checksum, but cannot be an entry, is refused.
func TestEntryThatCannotBe(t *testing.T) {
	key := keyOf(7)
	body := func(change func([]byte) []byte) []byte {
		e := sampleEntries()[1]
		value := appendEntry(nil, key, &e)
		return seal(change(value[:len(value)-checksumBytes]), 0, key)
	}
	const fields = 2 + 8 // version, end, time
	tests := []struct {
		name  string
		value []byte
		want  string
	}{
		{"version", body(func(b []byte) []byte { b[0] = 2; return b }), "version 2"},
		{"surplus", body(func(b []byte) []byte { return append(b, 0) }), "cannot be read"},
		{"short", body(func(b []byte) []byte { return b[:len(b)-1] }), "cannot be read"},
		{"nothing", seal(nil, 0, key), "version 0"},
		{"endless number", body(func(b []byte) []byte { return append(b[:fields], 0xFF, 0xFF) }), "cannot be read"},
		{"retry", body(func(b []byte) []byte { return binary.AppendUvarint(b[:fields], 1<<60) }), "cannot be read"},
		{"channels", body(func(b []byte) []byte { return binary.AppendUvarint(append(b[:fields], 0), 1<<60) }), "cannot be read"},
		{"length", body(func(b []byte) []byte { return binary.AppendUvarint(append(b[:fields], 0, 1), 1<<63) }), "cannot be read"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, err := decodeEntry("e", key, test.value); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// Whatever stands in a value, reading it does not panic, and what can be read
// is stored so that it reads the same.
func FuzzDecodeEntry(f *testing.F) {
	for _, e := range sampleEntries() {
		key := keyOf(e.Position.Seq)
		value := appendEntry(nil, key, &e)
		f.Add(key, value)
		f.Add(key, value[:len(value)-checksumBytes])
	}
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		_, _ = decodeEntry("e", key, value)
		e, err := decodeEntry("e", key, seal(slices.Clone(value), 0, key))
		if err != nil {
			return
		}
		again, err := decodeEntry("e", key, appendEntry(nil, key, &e))
		if err != nil || !reflect.DeepEqual(again, e) {
			t.Fatalf("%+v became %+v, %v", e, again, err)
		}
	})
}

// Whatever stands in the value of an id, reading it does not panic, and what
// can be read is what would be stored.
func FuzzDecodeRepeat(f *testing.F) {
	f.Add(keyOf(1), appendRepeat(nil, keyOf(1), sse.KeyOf("id"), time.Unix(1, 2)))
	f.Add([]byte{}, make([]byte, 24))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		_, _ = decodeRepeat(key, value)
		sealed := seal(slices.Clone(value), 0, key)
		r, err := decodeRepeat(key, sealed)
		if err == nil && !slices.Equal(appendRepeat(nil, key, r.Key, r.Time), sealed) {
			t.Fatalf("%x became %+v", sealed, r)
		}
	})
}
