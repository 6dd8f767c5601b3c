// Package gguf reads model files: metadata and tensors, as views of the mapped file.
//
// A File owns the mapping of one GGUF file, version 2 or 3, little-endian. The model reads its configuration, its
// vocabulary and its tensors through it; a shard maps the whole file but touches only the tensors of its own block.
//
// The format is that of the GGUF specification (docs/gguf.md of the ggml repository):
//
//	magic "GGUF", version uint32, tensor count uint64, key count uint64
//	per key:    name, value type uint32, value
//	per tensor: name, dimension count uint32, dimensions uint64 each, type uint32, offset uint64
//	padding to the alignment, then the tensors' data, each at its offset from here
//
// where a string is its length as uint64 and its bytes, an array its element type as uint32, its count as uint64 and its
// elements, and the alignment is 32 unless the key general.alignment says otherwise.
//
// The invariant: whatever a File hands out was checked when the file was parsed. Every tensor's data lies within the
// file, is aligned, has exactly the bytes that its type and dimensions need, and overlaps no other tensor; names of keys
// and of tensors are unique. Parsing takes time and memory proportional to the bytes read, whatever counts the file claims.
//
// Refused, with an error that names the key or tensor: version 1, big-endian files, arrays of arrays, tensor types whose
// size is not known here, tensors of no elements or of more than four dimensions, and anything that does not fit.
//
// What cannot be checked: a file that another process truncates while it is mapped ends this process with SIGBUS, and one
// that is overwritten in place changes under our hands. Model files must be replaced by renaming, never rewritten.
package gguf

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"slices"
)

// File is one parsed model file. It may be read from many goroutines at once, until Close.
type File struct {
	Path      string // empty when parsed from memory
	Version   uint32 // 2 or 3
	Size      int64  // bytes of the whole file
	Alignment int    // of every tensor's offset; a power of two, at least 8

	data    []byte
	mapped  bool
	keys    []string
	values  map[string]value
	tensors []Tensor
	byName  map[string]int // index into tensors
}

// Tensor is a named matrix of quantised or plain numbers. Its Data is a view of the file: it must not be written to, nor
// read after the file is closed.
type Tensor struct {
	Name   string
	Dims   []int // one to four, ggml order: Dims[0] varies fastest
	Type   Type
	Data   []byte // (rows, cols) of Type, rows in order
	Offset int64  // of Data from the start of the file
}

// Cols is the length of a row: the dimension that varies fastest.
func (t *Tensor) Cols() int { return t.Dims[0] }

// Rows is the number of rows: the product of all dimensions but the first.
func (t *Tensor) Rows() int {
	rows := 1
	for _, d := range t.Dims[1:] {
		rows *= d
	}
	return rows
}

// Open maps the file at path and parses it. Only regular files are opened: a pipe could keep us waiting for ever.
func Open(path string) (*File, error) {
	f, err := open(path)
	if err != nil {
		return nil, fmt.Errorf("open model %s: %w", path, err)
	}
	return f, nil
}

func open(path string) (*File, error) {
	// Asked before opening: to open a pipe that nobody writes to would block.
	info, err := os.Stat(path)
	if err != nil {
		return nil, cause(err)
	}
	if err := usable(info); err != nil {
		return nil, err
	}
	osFile, err := os.Open(path)
	if err != nil {
		return nil, cause(err)
	}
	defer osFile.Close() // a mapping outlives its descriptor
	if info, err = osFile.Stat(); err != nil {
		return nil, cause(err)
	}
	if err := usable(info); err != nil {
		return nil, err
	}
	data, err := mapFile(osFile, int(info.Size()))
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", info.Size(), err)
	}
	f, err := Parse(data)
	if err != nil {
		_ = unmapFile(data) // the parse error is the one that matters
		return nil, err
	}
	f.Path, f.mapped = path, true
	return f, nil
}

func usable(info fs.FileInfo) error {
	switch {
	case info.IsDir():
		return fmt.Errorf("is a directory, not a file")
	case !info.Mode().IsRegular():
		return fmt.Errorf("is not a regular file")
	case info.Size() == 0:
		return fmt.Errorf("is empty")
	case info.Size() > math.MaxInt:
		return fmt.Errorf("has %d bytes, more than this machine can address", info.Size())
	}
	return nil
}

// cause strips the path that package os adds, because Open adds it too.
func cause(err error) error {
	if pathErr, ok := err.(*fs.PathError); ok {
		return pathErr.Err
	}
	return err
}

// Close unmaps the file: no Data of any of its tensors may be touched afterwards. Further calls do nothing.
func (f *File) Close() error {
	data, mapped := f.data, f.mapped
	f.data, f.mapped, f.tensors, f.byName, f.values, f.keys = nil, false, nil, nil, nil, nil
	if !mapped {
		return nil
	}
	if err := unmapFile(data); err != nil {
		return fmt.Errorf("close model %s: %w", f.Path, err)
	}
	return nil
}

// Tensor finds a tensor by its name.
func (f *File) Tensor(name string) (*Tensor, bool) {
	i, ok := f.byName[name]
	if !ok {
		return nil, false
	}
	return &f.tensors[i], true
}

// Tensors lists all tensors in file order. The slice is the file's own: it must not be changed.
func (f *File) Tensors() []Tensor { return f.tensors }

// Header is how many bytes come before the first tensor's data: those that must be there to parse the file.
func (f *File) Header() int64 {
	header := f.Size
	for i := range f.tensors {
		header = min(header, f.tensors[i].Offset)
	}
	return header
}

// Keys lists the metadata keys in file order.
func (f *File) Keys() []string { return slices.Clone(f.keys) }

// Release tells the kernel that the pages of t.Data[from:to] are not needed for now, so that they leave this process's
// resident memory: for use after repacking. The data stays readable, at the price of reading it from the file again. It does
// nothing where the system has no such call.
func (f *File) Release(t *Tensor, from, to int) {
	if from < 0 || to > len(t.Data) {
		panic(fmt.Sprintf("gguf: release bytes %d to %d of the %d of %s", from, to, len(t.Data), t.Name))
	}
	if f.mapped {
		releasePages(f.data, int(t.Offset)+from, int(t.Offset)+to)
	}
}

// ReleaseAll is Release for the whole file, metadata included.
func (f *File) ReleaseAll() {
	if f.mapped {
		releasePages(f.data, 0, len(f.data))
	}
}
