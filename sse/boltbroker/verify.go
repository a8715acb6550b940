package boltbroker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// A file is read page by page before bbolt opens it, since bbolt trusts what it
// maps into memory: a wrong page number would be a fault or, worse, a page that
// is overwritten later because it seems to be free. The format is described in
// bbolt's internal/common; numbers have the machine's own byte order.

var native = binary.NativeEndian

const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2

	pageHeader  = 16 // id 8, flags 2, count 2, overflow 4
	elementSize = 16
	metaBytes   = 64 // the last 8 of them are the checksum

	pageBranch   = 0x01
	pageLeaf     = 0x02
	pageFreelist = 0x10

	leafBucket = 0x01 // flag of a leaf element that is a bucket
)

// A visitor gets what is in a file: the bucket meta, then record, then ids.
type visitor interface {
	// bucket begins a bucket, with which the writer has stored a number.
	bucket(name string, number uint64) error
	// element gets each key and value of the bucket, in order.
	element(bucket string, key, value []byte) error
}

// A verifier reads a file.
type verifier struct {
	file     io.ReaderAt
	size     int64
	pageSize uint64
	meta     boltMeta
	used     []bool            // by page
	buckets  map[string][]byte // what the root says of each
	visitor
}

type boltMeta struct{ root, freelist, pages, txid uint64 }

// verify checks the structure of a file and visits all that is in it.
func verify(file io.ReaderAt, size int64, visitor visitor) error {
	if size == 0 {
		return errEmpty
	}
	v := &verifier{file: file, size: size, visitor: visitor, buckets: make(map[string][]byte)}
	if err := v.readMetas(); err != nil {
		return err
	}
	v.used = make([]bool, v.meta.pages)
	v.used[0], v.used[1] = true, true
	if err := v.walk("", v.meta.root, new(keys)); err != nil {
		return err
	}
	if err := v.walkBuckets(); err != nil {
		return err
	}
	return v.checkFreelist()
}

// readMetas reads the two meta pages, of which the newer is in force. Both must
// be whole: bbolt would go back to the older one without a word, and lose a
// commit. A meta is smaller than what disks write at once, so a loss of power
// does not leave half of one.
func (v *verifier) readMetas() error {
	first, err := v.readMeta(0)
	if err != nil {
		return err
	}
	second, err := v.readMeta(int64(v.pageSize))
	if err != nil {
		return err
	}
	v.meta = first
	if second.txid > first.txid {
		v.meta = second
	}
	m := v.meta
	if m.pages < 4 || m.pages > uint64(v.size)/v.pageSize {
		return fmt.Errorf("it has %d bytes, but should have %d pages of %d: its end is missing", v.size, m.pages, v.pageSize)
	}
	return nil
}

func (v *verifier) readMeta(offset int64) (boltMeta, error) {
	b := make([]byte, pageHeader+metaBytes)
	if _, err := v.file.ReadAt(b, offset); err != nil && offset == 0 {
		return boltMeta{}, errForeign
	} else if err != nil {
		return boltMeta{}, fmt.Errorf("read the meta page at byte %d: %w", offset, err)
	}
	b = b[pageHeader:]
	sum := fnv.New64a()
	_, _ = sum.Write(b[:metaBytes-8])
	size := uint64(native.Uint32(b[8:]))
	switch {
	case native.Uint32(b) != boltMagic && offset == 0:
		return boltMeta{}, errForeign
	case native.Uint64(b[56:]) != sum.Sum64(), native.Uint32(b) != boltMagic, size < 512 || size > 1<<16:
		return boltMeta{}, fmt.Errorf("the meta page at byte %d is damaged", offset)
	case native.Uint32(b[4:]) != boltVersion:
		return boltMeta{}, fmt.Errorf("%w: it has version %d of bbolt's format", errNewer, native.Uint32(b[4:]))
	}
	v.pageSize = size
	return boltMeta{
		root: native.Uint64(b[16:]), freelist: native.Uint64(b[32:]),
		pages: native.Uint64(b[40:]), txid: native.Uint64(b[48:]),
	}, nil
}

// A page with those that it flows over into.
type page struct {
	id    uint64
	flags uint16
	count int
	bytes []byte
}

// read returns a page, each only once.
func (v *verifier) read(id uint64) (page, error) {
	if id < 2 || id >= v.meta.pages {
		return page{}, fmt.Errorf("there is no page %d", id)
	}
	header := make([]byte, pageHeader)
	if _, err := v.file.ReadAt(header, int64(id*v.pageSize)); err != nil {
		return page{}, fmt.Errorf("read page %d: %w", id, err)
	}
	overflow := uint64(native.Uint32(header[12:]))
	if own := native.Uint64(header); own != id || overflow >= v.meta.pages-id {
		return page{}, fmt.Errorf("page %d is damaged", id)
	}
	for i := id; i <= id+overflow; i++ {
		if v.used[i] {
			return page{}, fmt.Errorf("page %d is used twice", i)
		}
		v.used[i] = true
	}
	b := make([]byte, (overflow+1)*v.pageSize)
	if _, err := v.file.ReadAt(b, int64(id*v.pageSize)); err != nil {
		return page{}, fmt.Errorf("read page %d: %w", id, err)
	}
	return asPage(b), nil
}

func asPage(b []byte) page {
	return page{id: native.Uint64(b), flags: native.Uint16(b[8:]), count: int(native.Uint16(b[10:])), bytes: b}
}

// slice returns bytes of the page.
func (p page) slice(from, size uint64) ([]byte, error) {
	if from > uint64(len(p.bytes)) || size > uint64(len(p.bytes))-from {
		return nil, fmt.Errorf("page %d is damaged: it points behind its end", p.id)
	}
	return p.bytes[from : from+size], nil
}

func (p page) element(i int) (b []byte, at uint64, err error) {
	at = uint64(pageHeader + i*elementSize)
	b, err = p.slice(at, elementSize)
	return b, at, err
}

// keys holds the last key that was seen of a bucket, and that which must come
// next: a branch names the first key of what is below it. If it did not, bbolt
// would add to the branch when it writes that page anew, and leave the old page
// in it as well.
type keys struct{ last, next []byte }

func (k *keys) take(key []byte) error {
	if k.last != nil && bytes.Compare(key, k.last) <= 0 {
		return errors.New("its keys are out of order")
	}
	if k.next != nil && !bytes.Equal(key, k.next) {
		return errors.New("it does not begin where the page above says")
	}
	k.last, k.next = key, nil
	return nil
}

// walk visits what is below a page.
func (v *verifier) walk(bucket string, id uint64, seen *keys) error {
	p, err := v.read(id)
	if err != nil {
		return err
	}
	if p.flags != pageBranch {
		return v.walkLeaf(bucket, p, seen)
	}
	for i := range p.count {
		b, at, err := p.element(i)
		if err != nil {
			return err
		}
		key, err := p.slice(at+uint64(native.Uint32(b)), uint64(native.Uint32(b[4:])))
		if err != nil {
			return err
		}
		if seen.next != nil && !bytes.Equal(key, seen.next) {
			return fmt.Errorf("page %d is damaged: it does not begin where the page above says", id)
		}
		seen.next = key
		if err := v.walk(bucket, native.Uint64(b[8:]), seen); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) walkLeaf(bucket string, p page, seen *keys) error {
	if p.flags != pageLeaf {
		return fmt.Errorf("page %d is damaged: it is of no known kind", p.id)
	}
	for i := range p.count {
		b, at, err := p.element(i)
		if err != nil {
			return err
		}
		position, keySize := at+uint64(native.Uint32(b[4:])), uint64(native.Uint32(b[8:]))
		key, err := p.slice(position, keySize)
		if err != nil {
			return err
		}
		value, err := p.slice(position+keySize, uint64(native.Uint32(b[12:])))
		if err != nil {
			return err
		}
		if err := seen.take(key); err != nil {
			return fmt.Errorf("page %d is damaged: %w", p.id, err)
		}
		switch flags := native.Uint32(b); {
		case flags == leafBucket && bucket == "":
			v.buckets[string(key)] = value
		case flags == 0 && bucket != "":
			err = v.element(bucket, key, value)
		default:
			err = fmt.Errorf("page %d is damaged: an element of it has the flags %x", p.id, flags)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// walkBuckets visits what is in the buckets. It begins with meta, which may say
// that all else is that of a newer version, or of another program.
func (v *verifier) walkBuckets() error {
	if _, found := v.buckets[string(bucketMeta)]; !found {
		return errForeign
	}
	for _, name := range [][]byte{bucketMeta, bucketRecord, bucketIDs} {
		value, found := v.buckets[string(name)]
		if !found {
			return fmt.Errorf("its bucket %s is missing", name)
		}
		if err := v.walkBucket(string(name), value); err != nil {
			return err
		}
	}
	if len(v.buckets) > 3 {
		return errForeign
	}
	return nil
}

// walkBucket visits what is in a bucket, which has a page of its own or, while
// it is small, is within the value that describes it.
func (v *verifier) walkBucket(name string, value []byte) error {
	const header = 16 // root page and sequence
	if len(value) < header {
		return fmt.Errorf("bucket %q is damaged", name)
	}
	root, number := native.Uint64(value), native.Uint64(value[8:])
	if err := v.bucket(name, number); err != nil {
		return err
	}
	if root != 0 {
		return v.walk(name, root, new(keys))
	}
	if len(value) < header+pageHeader {
		return fmt.Errorf("bucket %q is damaged", name)
	}
	return v.walkLeaf(name, asPage(value[header:]), new(keys))
}

// checkFreelist checks that every page is either used or free.
func (v *verifier) checkFreelist() error {
	p, err := v.read(v.meta.freelist)
	if err != nil {
		return err
	}
	count, start := uint64(p.count), uint64(pageHeader)
	if count == 0xFFFF { // then the number stands in front
		b, err := p.slice(start, 8)
		if err != nil {
			return err
		}
		count, start = native.Uint64(b), start+8
	}
	if p.flags != pageFreelist || count > v.meta.pages {
		return errors.New("the list of free pages is damaged")
	}
	ids, err := p.slice(start, count*8)
	if err != nil {
		return err
	}
	for ; len(ids) > 0; ids = ids[8:] {
		id := native.Uint64(ids)
		if id >= v.meta.pages || v.used[id] {
			return fmt.Errorf("the list of free pages is damaged: page %d is not free", id)
		}
		v.used[id] = true
	}
	for id, used := range v.used {
		if !used {
			return fmt.Errorf("the list of free pages is damaged: page %d is missing", id)
		}
	}
	return nil
}
