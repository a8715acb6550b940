package caddymodule_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
)

// TestFilesRunOut promises that a server that may open no more files serves those
// streams that it has, lets in others as soon as some have left, and loses nothing.
// With the last file a stream is opened that no file is left to take over.
func TestFilesRunOut(t *testing.T) {
	l := newLab(t)
	process := caddytest.Run(t, fmt.Sprintf("{\n\tadmin 127.0.0.1:%d\n\tlog {\n\t\tlevel ERROR\n\t}\n}\nhttp://127.0.0.1:%d {\n\tsse /events* {\n\t\tallow *\n\t}\n}\n", l.adminPort, l.sitePort))
	process.WaitServing(t, l.admin+"/sse/health")
	client := &http.Client{Transport: new(http.Transport), Timeout: patience} // whose connection stays open
	defer client.CloseIdleConnections()
	publish := func(data string) {
		answer, err := client.Post(l.admin+"/sse/publish/a", "text/plain", strings.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if text, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode != 200 {
			t.Fatalf("a publish was answered %d %s, %v", answer.StatusCode, text, err)
		}
	}
	publish("0")
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", process.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	const room, crowd = 20, 60
	limit := unix.Rlimit{Cur: uint64(len(files) + room), Max: uint64(len(files) + room)}
	if err := unix.Prlimit(process.Process.Pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	waiting := make(chan *crowded, crowd)
	for range crowd {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", l.sitePort))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		fmt.Fprintf(conn, "GET /events?channel=a HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", l.sitePort)
		go func() {
			c := &crowded{Conn: conn, lines: bufio.NewScanner(conn)}
			c.lines.Buffer(nil, 1<<20)
			c.await("event: hub:open")
			waiting <- c
		}()
	}
	for served := 0; served < crowd; {
		var open []*crowded
		for len(open) == 0 || len(waiting) > 0 {
			select {
			case c := <-waiting:
				open = append(open, c)
			case <-time.After(patience):
				t.Fatalf("%d of %d were served, and no more", served, crowd)
			}
		}
		if len(open) > room+1 { // the connection of the first publish may have been counted
			t.Fatalf("%d streams are open, and there are files for %d", len(open), room)
		}
		served++
		data := fmt.Sprint("to ", served)
		publish(data)
		for _, c := range open {
			if !c.await("data: " + data) {
				t.Errorf("a stream ended before it had %q", data)
			}
		}
		_ = open[0].Close() // makes room for another
		for _, c := range open[1:] {
			waiting <- c
		}
	}
	if text := process.Output.String(); strings.Contains(text, "panic") {
		t.Errorf("it panicked: %s", text)
	}
}

// A crowded stream is one of many.
type crowded struct {
	net.Conn
	lines *bufio.Scanner
}

// await reads until there is a line, or the stream has ended.
func (c *crowded) await(line string) bool {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	for c.lines.Scan() {
		if strings.TrimSuffix(c.lines.Text(), "\r") == line {
			return true
		}
	}
	return false
}
