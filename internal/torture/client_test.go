package torture

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// clients are ways to get to the server.
type clients struct {
	own    *http.Client // each stream has a connection
	narrow *http.Client // the same, and takes little that is not read
	shared *http.Client // streams share an HTTP/2 connection
	post   *http.Client
}

func newClients(t *testing.T) *clients {
	client := func(change func(*http.Transport)) *http.Client {
		transport := &http.Transport{DisableCompression: true}
		change(transport)
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport}
	}
	return &clients{
		own: client(func(tr *http.Transport) { tr.DisableKeepAlives = true }),
		narrow: client(func(tr *http.Transport) {
			tr.DisableKeepAlives = true
			tr.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, address)
				if err == nil {
					err = conn.(*net.TCPConn).SetReadBuffer(64 << 10)
				}
				return conn, err
			}
		}),
		shared: client(func(tr *http.Transport) {
			tr.Protocols = new(http.Protocols)
			tr.Protocols.SetUnencryptedHTTP2(true)
		}),
		post: client(func(tr *http.Transport) { tr.MaxIdleConnsPerHost = publishers }),
	}
}

// A frame is a block of a stream.
type frame struct {
	message sse.Message // whose id is the last one there was
	hasData bool
	hasID   bool
	retry   time.Duration // zero if it does not say
}

// A frameReader reads a stream in the simplest way that will do for what the
// hub sends: line feeds, a field a line, each field but data once.
type frameReader struct {
	lines  *bufio.Reader
	lastID string
}

func newFrameReader(body io.Reader) *frameReader {
	return &frameReader{lines: bufio.NewReader(body)}
}

// next returns the next block, be it only a comment. What is not complete is not
// returned.
func (r *frameReader) next() (frame, error) {
	var f frame
	var data []string
	for {
		line, err := r.lines.ReadString('\n')
		if err != nil {
			return frame{}, err
		}
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "\n":
			f.message.ID = r.lastID
			f.message.Data = strings.Join(data, "\n")
			f.hasData = len(data) > 0
			return f, nil
		case field == "id":
			r.lastID, f.hasID = value, true
		case field == "retry":
			ms, err := strconv.Atoi(value)
			if err != nil {
				return frame{}, err
			}
			f.retry = time.Duration(ms) * time.Millisecond
		case field == "event":
			f.message.Event = value
		case field == "data":
			data = append(data, value)
		}
	}
}
