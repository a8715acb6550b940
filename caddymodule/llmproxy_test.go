package caddymodule_test

import (
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
)

// A streamRequest is a request for the stream of an answer.
type streamRequest struct {
	answer, lastEventID string
	status              int // zero until it is answered
}

// A front stands between browsers and the site. It notes the requests for
// streams, and can cut them.
type front struct {
	*httptest.Server
	proxy *httputil.ReverseProxy

	mu        sync.Mutex
	requests  []*streamRequest
	cutAfter  func() int // bytes of a stream; nil for none
	cutBefore string     // what one stream would carry; empty for none
	cutNow    chan struct{}
}

func newFront(t *testing.T, site string) *front {
	f := &front{proxy: newProxy(t, site)}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/events" {
		w = f.note(w, r)
	}
	f.proxy.ServeHTTP(w, r)
}

func (f *front) note(w http.ResponseWriter, r *http.Request) *cutWriter {
	f.mu.Lock()
	defer f.mu.Unlock()
	request := &streamRequest{answer: r.URL.Query().Get("answer"), lastEventID: r.Header.Get("Last-Event-ID")}
	f.requests = append(f.requests, request)
	writer := &cutWriter{ResponseWriter: w, front: f, request: request, gone: r.Context().Done(), left: -1}
	if f.cutAfter != nil {
		writer.left = f.cutAfter()
	}
	return writer
}

// cut has every stream from now on break after that many bytes.
func (f *front) cut(after func() int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cutAfter = after
}

// cutOnce has one stream stall where such text would follow, and break when the
// function is called that it returns.
func (f *front) cutOnce(before string) func() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cutBefore = before
	f.cutNow = make(chan struct{})
	now := f.cutNow
	return func() { close(now) }
}

// stall returns where one stream is to stall, or -1, and when to break it.
func (f *front) stall(p []byte) (at int, cutNow <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cutBefore == "" {
		return -1, nil
	}
	at = strings.Index(string(p), f.cutBefore)
	if at >= 0 {
		f.cutBefore = ""
	}
	return at, f.cutNow
}

// streams returns the requests for the stream of an answer.
func (f *front) streams(answer string) (found []streamRequest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.requests {
		if r.answer == answer {
			found = append(found, *r)
		}
	}
	return found
}

// A cutWriter fails after some bytes, upon which the proxy breaks the
// connection.
type cutWriter struct {
	http.ResponseWriter
	front   *front
	request *streamRequest
	gone    <-chan struct{} // closed when the browser is gone
	left    int             // negative: no limit
	cutNow  <-chan struct{} // when to fail, once nothing is left; nil for at once
}

func (w *cutWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *cutWriter) WriteHeader(status int) {
	w.front.mu.Lock()
	w.request.status = status
	w.front.mu.Unlock()
	w.ResponseWriter.WriteHeader(status)
}

var errCut = errors.New("the connection is cut")

func (w *cutWriter) Write(p []byte) (int, error) {
	if w.left < 0 {
		w.left, w.cutNow = w.front.stall(p)
	}
	if w.left < 0 {
		return w.ResponseWriter.Write(p)
	}
	if len(p) < w.left {
		w.left -= len(p)
		return w.ResponseWriter.Write(p)
	}
	n, err := w.ResponseWriter.Write(p[:w.left])
	if err == nil {
		err = http.NewResponseController(w.ResponseWriter).Flush()
	}
	if w.cutNow != nil {
		select {
		case <-w.cutNow:
		case <-w.gone:
		}
	}
	return n, errors.Join(errCut, err)
}

// A back stands between the backend and the hub. It can hold what is published,
// so that an answer stays unfinished for as long as a test needs it, and fail.
type back struct {
	*httptest.Server
	proxy *httputil.ReverseProxy

	mu        sync.Mutex
	passes    chan struct{} // one for each publish, closed when there is no limit
	faults    []backFault   // of the next publishes
	published int
}

// A backFault is how a publish fails.
type backFault string

const (
	unharmed backFault = ""
	refused  backFault = "answered 503"
	lost     backFault = "lost before it was taken"
	unheard  backFault = "taken, but the answer is lost"
)

func newBack(t *testing.T, admin string) *back {
	b := &back{proxy: newProxy(t, admin)}
	b.hold(0)
	b.Server = httptest.NewServer(b)
	t.Cleanup(b.Close)
	return b
}

// hold lets so many publishes pass and has the others wait for pass or
// release. Those that wait already stay with what was said before.
func (b *back) hold(passes int) {
	b.mu.Lock()
	b.passes = make(chan struct{}, 1000)
	b.mu.Unlock()
	b.pass(passes)
}

// pass lets some more publishes pass.
func (b *back) pass(passes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range passes {
		b.passes <- struct{}{}
	}
}

// release lets all publishes pass.
func (b *back) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.passes)
}

// count returns how many publishes there were, of whatever outcome.
func (b *back) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.published
}

// fail has the next publishes fail.
func (b *back) fail(faults ...backFault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = faults
}

func (b *back) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		b.proxy.ServeHTTP(w, r)
		return
	}
	b.mu.Lock()
	passes := b.passes
	b.mu.Unlock()
	body, _ := io.ReadAll(r.Body) // without which the end of the connection goes unnoticed
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	select {
	case <-passes:
	case <-r.Context().Done():
		return
	}
	switch b.nextFault() {
	case refused:
		w.WriteHeader(http.StatusServiceUnavailable)
	case lost:
		panic(http.ErrAbortHandler)
	case unheard:
		b.proxy.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	case unharmed:
		b.proxy.ServeHTTP(w, r)
	}
}

func (b *back) nextFault() backFault {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.published++
	if len(b.faults) == 0 {
		return unharmed
	}
	fault := b.faults[0]
	b.faults = slices.Delete(b.faults, 0, 1)
	return fault
}

// newProxy returns a proxy to a host and port. When that is away, it drops
// connections as if it were not there itself.
func newProxy(t *testing.T, host string) *httputil.ReverseProxy {
	transport := new(http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	return &httputil.ReverseProxy{
		Transport: transport,
		ErrorLog:  log.New(io.Discard, "", 0),
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: host}) },
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) {
			panic(http.ErrAbortHandler)
		},
	}
}
