package caddymodule_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// deaf opens a stream whose client reads nothing: neither the test, nor, as its
// buffer is small, the system on its behalf.
func (f *flood) deaf(query string) net.Conn {
	f.t.Helper()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", f.sitePort))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.Close() })
	if err := conn.(*net.TCPConn).SetReadBuffer(1); err != nil { // as little as can be
		f.t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "GET /events%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", query, f.sitePort); err != nil {
		f.t.Fatal(err)
	}
	return conn
}

// TestAttackDeafChanges promises that changes to a stream whose client reads nothing
// are refused with 429 when some wait, so that what waits is bounded; that they cost
// the others nothing; and that the client, when it comes back, has what the last
// change that was accepted gave it.
func TestAttackDeafChanges(t *testing.T) {
	f := newFlood(t)
	conn := f.deaf("?channel=a&connection=" + aliceID)
	eventually(t, "it listens", func() bool { return f.numbers("").Streams == 2 })
	f.publish("old", strings.Repeat("x", 1<<19))
	// So much is sent to it that its connection is full.
	for range 30 {
		f.publish("a", strings.Repeat("x", 1<<19))
	}
	accepted, crowded, last := 0, 0, ""
	for i := range 3000 {
		word, name := "subscribe", strings.Repeat("n", 200)+fmt.Sprint(i%2)
		if i%4 >= 2 {
			word = "unsubscribe"
		}
		got := f.do("POST", f.site+"/events/"+word+"/"+name+"?since=earliest&connection="+aliceID, "")
		switch got.StatusCode {
		case 200:
			accepted, last = accepted+1, strings.TrimSpace(got.body)
		case 429:
			crowded++
			if got.Header.Get("Retry-After") == "" {
				t.Errorf("429 without Retry-After")
			}
		default:
			t.Fatalf("change %d was answered %d %s", i, got.StatusCode, got.body)
		}
		if i%300 == 0 {
			f.still("while a deaf client is changed")
		}
	}
	t.Logf("%d were accepted, %d refused", accepted, crowded)
	if crowded == 0 || accepted == 0 || accepted > 100 {
		t.Errorf("of 3000 changes %d were accepted, and %d refused", accepted, crowded)
	}
	if n := f.numbers("").Refused; n["rate"] != crowded {
		t.Errorf("%d were counted of %d", n["rate"], crowded)
	}
	conn.Close()
	eventually(t, "its stream has ended", func() bool { return f.numbers("").Streams == 1 })
	s, _ := f.openAt("/events?channel=a&connection=" + aliceID)
	var changed changeReply
	f.do("POST", f.site+"/events/subscribe/a?connection="+aliceID, "").into(t, &changed)
	if got := `{"channels":["` + strings.Join(changed.Channels, `","`) + `"]}`; got != last {
		t.Errorf("it came back to %.300s, want %.300s", got, last)
	}
	s.Close()
	f.over()
}

// TestAttackChangesWhileEventsFlow promises that thousands of changes to a stream,
// by its client and from inside, neither lose nor double nor reorder an event of
// the channel that it has all the time, nor bring one of a channel that nobody
// gave it.
func TestAttackChangesWhileEventsFlow(t *testing.T) {
	f := newFlood(t)
	const events, changers, changes = 2000, 4, 500
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", f.sitePort))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /events?channel=always&connection=%s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", aliceID, f.sitePort)
	whole := make(chan []byte, 1)
	go func() {
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			whole <- nil
			return
		}
		defer answer.Body.Close()
		all, _ := io.ReadAll(answer.Body) // until the connection is closed
		whole <- all
	}()
	eventually(t, "it listens", func() bool { return f.numbers("").Streams == 2 })

	var running sync.WaitGroup
	var mu sync.Mutex
	statuses := map[int]int{}
	for c := range changers {
		running.Go(func() {
			for i := range changes {
				path, body := f.site+"/events?connection="+aliceID, fmt.Sprintf(`{"subscribe":["to-%d-%d"],"unsubscribe":["to-%d-%d"],"since":"earliest"}`, c, i%3, c, (i+1)%3)
				if c == 0 {
					path, body = f.admin+"/sse/connections/"+aliceID+"/channels", strings.Replace(body, `,"since":"earliest"`, "", 1)
				}
				got := f.do("POST", path, body, jsonType)
				mu.Lock()
				statuses[got.StatusCode]++
				mu.Unlock()
			}
		})
	}
	for i := range events / 20 {
		var batch []string
		for j := range 20 {
			batch = append(batch, fmt.Sprintf(`{"channel":"always","data":"%d"},{"channel":"to-%d-%d","data":"x"},{"channel":"never","data":"leaked"}`, i*20+j, j%changers, j%3))
		}
		if got := f.do("POST", f.admin+"/sse/publish", "["+strings.Join(batch, ",")+"]", jsonType); got.StatusCode != 200 {
			t.Fatalf("a publish was answered %d %s", got.StatusCode, got.body)
		}
	}
	running.Wait()
	f.still("after the changes")
	t.Logf("the changes were answered %v", statuses)
	for status, n := range statuses {
		if status != 200 && status != 429 && status != 403 {
			t.Errorf("%d were answered %d", n, status)
		}
	}
	f.do("DELETE", f.admin+"/sse/connections/"+aliceID, "")
	conn.(*net.TCPConn).CloseWrite()
	var all []byte
	select {
	case all = <-whole:
	case <-time.After(patience):
		t.Fatal("the stream does not end")
	}
	next := 0
	parsedEvents, _ := parseStream(all)
	for _, e := range parsedEvents {
		switch {
		case e.event == "hub:reset":
			t.Errorf("it was reset: %s", e.data)
		case e.event != "message":
		case e.data == "leaked":
			t.Fatalf("it got %q", e)
		case e.data == fmt.Sprint(next):
			next++
		case e.data != "x": // what it asked for again comes again
			t.Fatalf("it got %q where %d was due", e, next)
		}
	}
	if next != events {
		t.Errorf("it got %d of %d events", next, events)
	}
	f.over()
}
