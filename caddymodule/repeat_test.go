package caddymodule_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestRepeat promises that the id of an event, wherever it is given, makes its
// publish safe to repeat: the second is answered as the first was and delivers
// nothing, however it is made, while others go on.
func TestRepeat(t *testing.T) {
	l := loadLab(t, "", anyChannel+"\n\t"+openAPI)
	ways := []struct {
		name, path, body string
		header           []string
	}{
		{"query", "/publish/a?id=ID", "x", nil},
		{"header", "/publish/a", "x", []string{"Sse-Id: ID"}},
		{"Idempotency-Key", "/publish/a", "x", []string{"Idempotency-Key: ID"}},
		{"envelope", "/publish", `{"channel":"a","data":"x","id":"ID"}`, []string{jsonCT}},
		{"envelope in an array", "/publish", `[{"channel":"a","data":"x","id":"ID"}]`, []string{jsonCT}},
		{"envelope with Idempotency-Key", "/publish", `{"channel":"a","data":"x"}`, []string{jsonCT, "Idempotency-Key: ID"}},
		{"form", "/publish", "channel=a&data=x&id=ID", []string{form}},
		{"form with Idempotency-Key", "/publish", "channel=a&data=x", []string{form, "Idempotency-Key: ID"}},
		{"line", "/publish", `{"channel":"a","data":"x","id":"ID"}`, []string{ndjsonCT}},
	}
	s, _ := l.open("?channel=a")
	send := func(door, way int, id string) string {
		w := ways[way]
		var header []string
		for _, h := range w.header {
			header = append(header, strings.ReplaceAll(h, "ID", id))
		}
		d := doors(l)[door]
		got := l.do("POST", withQuery(d.base+strings.ReplaceAll(w.path, "ID", id), d.query), strings.ReplaceAll(w.body, "ID", id), header...)
		if got.StatusCode != 200 {
			t.Fatalf("%s: got %d %s", w.name, got.StatusCode, got.body)
		}
		return strings.Trim(got.body, "[]\n")
	}
	for first := range ways {
		id := fmt.Sprint("id-", first)
		want := send(0, first, id)
		m := s.Expect("message")
		if !strings.Contains(want, `"`+m.ID+`"`) {
			t.Fatalf("%s: answered %s, delivered %s", ways[first].name, want, m.ID)
		}
		l.publish("a", "between")
		expectData(t, s, "between")
		for again := range ways {
			if got := send(again%3, again, id); got != want {
				t.Errorf("first by %s, then by %s: got %s, want %s", ways[first].name, ways[again].name, got, want)
			}
		}
	}
	before := l.numbers("").Published
	if want := 2 * len(ways); before != want {
		t.Errorf("%d events were published, want %d", before, want)
	}
	l.publish("a", "last")
	expectData(t, s, "last") // and nothing before it
}

// TestRepeatIsByValue promises that ids which differ in anything are different
// ids: an Idempotency-Key is taken with its quotes.
func TestRepeatIsByValue(t *testing.T) {
	l := loadLab(t, "", anyChannel)
	for _, key := range []string{`k`, `"k"`, `K`, `k2`, `k;x=1`, `Idempotency-Key:k`} {
		for range 2 {
			l.do("POST", l.admin+"/sse/publish/a", "x", "Idempotency-Key: "+key).into(t, new(receipt))
		}
	}
	if n := l.numbers("").Published; n != 6 {
		t.Errorf("%d events were published, want 6", n)
	}
}

// TestRepeatSubscribers promises that a repeat tells who listens now.
func TestRepeatSubscribers(t *testing.T) {
	l := loadLab(t, "", anyChannel)
	var first, again receipt
	l.do("POST", l.admin+"/sse/publish/a?id=1", "x").into(t, &first)
	l.open("?channel=a")
	l.do("POST", l.admin+"/sse/publish/a?id=1", "x").into(t, &again)
	if again.ID != first.ID || first.Subscribers != 0 || again.Subscribers != 1 {
		t.Errorf("got %+v, then %+v", first, again)
	}
}

// TestRepeatArray promises that an array with an Idempotency-Key can be
// repeated as a whole, event by event in the same places, and that its key is
// no id that another request could mean.
func TestRepeatArray(t *testing.T) {
	l := loadLab(t, "", anyChannel)
	const array = `[{"channel":"a","data":"1"},{"channels":["a","b"],"data":"2"},{"channel":"b","data":"3"}]`
	post := func(body, key string) (receipts []receipt) {
		l.do("POST", l.admin+"/sse/publish", body, jsonCT, "Idempotency-Key: "+key).into(t, &receipts)
		return receipts
	}
	first := post(array, "k")
	l.do("POST", l.admin+"/sse/publish/a", "single", "Idempotency-Key: k").into(t, new(receipt))
	l.do("POST", l.admin+"/sse/publish", `{"channel":"a"}`, jsonCT, "Idempotency-Key: k").into(t, new(receipt)) // a repeat of that
	again := post(array, "k")
	if len(first) != 3 || len(again) != 3 {
		t.Fatalf("got %d and %d receipts", len(first), len(again))
	}
	for i := range first {
		if again[i] != first[i] || first[i].ID.Seq != uint64(i+1) {
			t.Errorf("%d: got %+v, then %+v", i, first[i], again[i])
		}
	}
	if post(array, "k2")[0].ID.Seq != 5 {
		t.Error("an array with another key is taken for a repeat")
	}
	if n := l.numbers("").Published; n != 7 {
		t.Errorf("%d events were published, want 7", n)
	}
}

// TestRepeatWithin promises that an id given twice in one array is one event.
func TestRepeatWithin(t *testing.T) {
	l := loadLab(t, "", anyChannel)
	s, _ := l.open("?channel=*")
	var receipts []receipt
	l.do("POST", l.admin+"/sse/publish", `[{"channel":"a","data":"1","id":"x"},{"channel":"a","data":"2"},{"channel":"a","data":"3","id":"x"}]`, jsonCT).into(t, &receipts)
	if receipts[2].ID != receipts[0].ID || receipts[1].ID == receipts[0].ID {
		t.Errorf("got %+v", receipts)
	}
	l.publish("a", "last")
	expectData(t, s, "1", "2", "last")
}

// TestRepeatOverReload promises that ids are remembered over a reload.
func TestRepeatOverReload(t *testing.T) {
	l := loadLab(t, "", anyChannel)
	var first, again receipt
	l.do("POST", l.admin+"/sse/publish/a?id=1", "x").into(t, &first)
	l.load("", anyChannel+"\n\trespond /new 200")
	l.do("POST", l.admin+"/sse/publish/a?id=1", "x").into(t, &again)
	if again.ID != first.ID {
		t.Errorf("got %s, then %s", first.ID, again.ID)
	}
}
