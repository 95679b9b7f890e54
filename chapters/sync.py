"""Markdown and head of chapters/X.py into X.ipynb; code cells must be the same."""
import json,sys,jupytext
for p in sys.argv[1:]:
    py=jupytext.read(p); q=p.replace('.py','.ipynb'); nb=json.load(open(q))
    assert len(py.cells)==len(nb['cells']),(len(py.cells),len(nb['cells']))
    for a,b in zip(py.cells,nb['cells']):
        assert a.cell_type==b['cell_type'],(a.source[:60])
        src="".join(b['source'])
        if a.source!=src:
            assert a.cell_type=='markdown', a.source[:80]
            b['source']=a.source.splitlines(True)
    nb['metadata']['book']=dict(py.metadata['book'])
    raw=open(q).read(); ind=1
    open(q,'w').write(json.dumps(nb,indent=1,ensure_ascii=False)+"\n")
