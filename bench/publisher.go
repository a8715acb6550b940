//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// A publisher posts events on one connection, by the same request over and over
// in which only the stamps change.
type publisher struct {
	conn    net.Conn // nil if the server has ended it
	dial    func() (net.Conn, error)
	answers *bufio.Reader
	request []byte
	data    [][]byte // of each event in the request
}

// newPublisher connects to the publish endpoint, to publish one event on a
// channel at a time. The connection is unusable once ctx is done.
func (s *server) newPublisher(ctx context.Context, channel string, size int) (*publisher, error) {
	of := engines[s.engine].post(channel)
	body := append([]byte(of.before), bytes.Repeat([]byte{'x'}, size)...)
	return s.newPoster(ctx, of.path, of.header, append(body, of.after...), []int{len(of.before)}, size)
}

// newArrayPublisher connects like newPublisher, to publish one event on each of
// the channels at a time, all by one request.
func (s *server) newArrayPublisher(ctx context.Context, channels []string, size int) (*publisher, error) {
	body := []byte{'['}
	var at []int // where each event's data are
	for i, channel := range channels {
		if i > 0 {
			body = append(body, ',')
		}
		body = fmt.Appendf(body, `{"channel":%q,"data":"`, channel)
		at = append(at, len(body))
		body = append(append(body, bytes.Repeat([]byte{'x'}, size)...), `"}`...)
	}
	return s.newPoster(ctx, "/sse/publish", "Content-Type: application/json\r\n", append(body, ']'), at, size)
}

func (s *server) newPoster(ctx context.Context, path, header string, body []byte, at []int, size int) (*publisher, error) {
	request := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\n%sContent-Length: %d\r\n\r\n",
		path, s.publishAt, header, len(body))
	request = append(request, body...)
	p := &publisher{dial: func() (net.Conn, error) { return s.dial(ctx) }, request: request}
	body = request[len(request)-len(body):]
	for _, i := range at {
		p.data = append(p.data, body[i:i+size])
	}
	return p, p.connect()
}

func (p *publisher) connect() (err error) {
	if p.conn, err = p.dial(); err == nil {
		p.answers = bufio.NewReader(p.conn)
	}
	return err
}

// dial connects to the publish endpoint.
func (s *server) dial(ctx context.Context) (net.Conn, error) {
	conn, err := net.Dial("tcp", s.publishAt)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	return conn, nil
}

// run publishes the part of a series that is the i-th publisher's.
func (p *publisher) run(ctx context.Context, l load, s *series, i int) error {
	start := time.Now()
	for n := i; n < l.events; n += l.publishers {
		if err := p.post(s.id, n); err != nil {
			return err
		}
		next := s.done[i]
		var tick <-chan time.Time
		if l.every > 0 {
			next, tick = nil, time.After(time.Until(start.Add(time.Duration(n+1)*l.every)))
		}
		select {
		case <-next:
		case <-tick:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// runAhead publishes a series without waiting for anybody to receive it.
func (p *publisher) runAhead(s *series) error {
	for n := range s.missing {
		if err := p.post(s.id, n); err != nil {
			return err
		}
	}
	return nil
}

// post publishes an event on each channel, and returns when that is answered.
func (p *publisher) post(series uint32, n int) error {
	for _, data := range p.data {
		stamp{series, uint32(n), now()}.put(data)
	}
	return p.send()
}

// send sends the request as it is, and returns when it is answered.
func (p *publisher) send() error {
	if p.conn == nil {
		if err := p.connect(); err != nil {
			return err
		}
	}
	if _, err := p.conn.Write(p.request); err != nil {
		return err
	}
	answer, err := http.ReadResponse(p.answers, nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if answer.Close { // as not all servers keep it
		p.close()
		p.conn = nil
	}
	if err == nil && answer.StatusCode/100 != 2 {
		err = errors.New(answer.Status + ": " + string(body))
	}
	return err
}

func (p *publisher) close() {
	if p.conn != nil {
		_ = p.conn.Close()
	}
}
