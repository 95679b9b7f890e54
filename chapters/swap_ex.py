import re,sys
ch,brief=sys.argv[1:3]
s=open(ch).read(); b=open(brief).read()
blocks={}
for m in re.finditer(r"## \d+\.\d+[^\n]*\n\n```python\n(.*?)\n```\n(?=\n## |\n# |\Z)", b, re.S):
    blk=m[1]
    name=re.search(r"^def (\w+)",blk,re.M)[1]
    q=re.search(r"# %% \[markdown\]\n(# > \*\*Exercise.*?)\n\n# %%",blk,re.S)[1]
    stub=re.search(r"# %%\n(def .*?)\n\n\n# %%",blk,re.S)[1]
    sol=re.search(r"(# <details>.*# </details>)",blk,re.S)[1]
    blocks[name]=(q,stub,sol)
print(list(blocks))
for name,(q,stub,sol) in blocks.items():
    m=re.search(r"# > \*\*Exercise (\d+\.\d+)\*\*(?:(?!\n# %%).)*?\n\n# %%\ndef "+name+r"\(.*?\n    \.\.\.\n\n\n# %%\ncheck\."+name+r"\("+name+r"\)\n\n# %% \[markdown\]\n(?:# <details><summary>Hint.*?# </details>\n#\n)?# <details>.*?# </details>",s,re.S)
    if not m: print("missing",name); continue
    q=re.sub(r"Exercise \d+\.\d+",f"Exercise {m[1]}",q)
    new=f"{q}\n\n# %%\n{stub}\n\n\n# %%\ncheck.{name}({name})\n\n# %% [markdown]\n{sol}"
    s=s[:m.start()]+new+s[m.end():]
open(ch,"w").write(s)
