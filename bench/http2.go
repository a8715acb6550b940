//go:build linux

package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// largestWindow is what the server may send before it is told that some was
// read. Nothing here sends so much on a stream.
const largestWindow = 1<<31 - 1

// A frameReader reads the streams on one connection of HTTP/2.
type frameReader struct {
	*http2.Framer
	audience *audience
	first    int // the audience's stream that is 1 here; the next is 3
	read     int // bytes that the server does not know of
}

// readFrames opens the streams on a connection, and reads them.
func (r *secureReceiver) readFrames(a *audience, conn *tls.Conn, first int) error {
	if err := negotiated(conn, "h2"); err != nil {
		return err
	}
	f := &frameReader{Framer: http2.NewFramer(conn, conn), audience: a, first: first}
	f.SetReuseFrames()
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		return err
	}
	err := errors.Join(
		f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: largestWindow}),
		f.WriteWindowUpdate(0, largestWindow-65535),
	)
	for i := first; i < min(first+r.share, len(a.streams)); i++ {
		err = errors.Join(err, f.ask(i))
	}
	for err == nil {
		err = f.next()
	}
	return err
}

// ask sends the request for a stream.
func (f *frameReader) ask(i int) error {
	wanted := f.audience.begin(i)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range []hpack.HeaderField{
		{Name: ":method", Value: "GET"},
		{Name: ":scheme", Value: "https"},
		{Name: ":authority", Value: f.audience.address},
		{Name: ":path", Value: wanted.path()},
		{Name: "accept", Value: "text/event-stream"},
	} {
		if err := encoder.WriteField(field); err != nil {
			return err
		}
	}
	return f.WriteHeaders(http2.HeadersFrameParam{
		StreamID: uint32(2*(i-f.first) + 1), BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true,
	})
}

// next takes a frame.
func (f *frameReader) next() error {
	frame, err := f.ReadFrame()
	if err != nil {
		return err
	}
	i := f.first + int(frame.Header().StreamID/2)
	switch frame := frame.(type) {
	case *http2.SettingsFrame:
		if !frame.IsAck() {
			return f.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !frame.IsAck() {
			return f.WritePing(true, frame.Data)
		}
	case *http2.MetaHeadersFrame:
		if status := frame.PseudoValue("status"); status != "200" || frame.StreamEnded() {
			return fmt.Errorf("a subscription was answered %s", status)
		}
		f.audience.answer(i)
	case *http2.DataFrame:
		if err := f.audience.feed(i, frame.Data()); err != nil {
			return err
		}
		if frame.StreamEnded() {
			return errEnded
		}
		return f.acknowledge(int(frame.Length))
	case *http2.RSTStreamFrame, *http2.GoAwayFrame:
		return fmt.Errorf("%w: %s", errEnded, frame)
	}
	return nil
}

// acknowledge lets the server send on, seldom.
func (f *frameReader) acknowledge(n int) error {
	if f.read += n; f.read < largestWindow/2 {
		return nil
	}
	n, f.read = f.read, 0
	return f.WriteWindowUpdate(0, uint32(n))
}
