import sys,time,traceback,jupytext
from IPython.core.interactiveshell import InteractiveShell
sh=InteractiveShell.instance()
nb=jupytext.read(sys.argv[1])
only=sys.argv[2:] 
tot=0
for c in nb.cells:
    if c.cell_type!="code": continue
    head=c.source.strip().split("\n")[0][:60]
    t=time.process_time(); print(f"--- {head}",flush=True)
    r=sh.run_cell(c.source)
    dt=time.process_time()-t; tot+=dt
    if dt>1: print(f"[{dt:.1f} CPU s]")
print("total",tot)
