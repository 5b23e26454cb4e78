"""A second implementation of the keys crate's derivations and file formats, from the specifications alone:
BLAKE3 (inputs of at most 1024 bytes, one chunk), ChaCha20 (RFC 8439), protocol.md section 3.
Prints the vectors that the tests hold. Needs only Python 3: python3 keys_reference.py"""
import struct
M=0xffffffff
IV=[0x6A09E667,0xBB67AE85,0x3C6EF372,0xA54FF53A,0x510E527F,0x9B05688C,0x1F83D9AB,0x5BE0CD19]
PERM=[2,6,3,10,7,0,4,13,1,11,12,5,9,14,15,8]
def rotr(x,n): return ((x>>n)|(x<<(32-n)))&M
def compress(cv,block,t,b,d):
    v=cv[:]+IV[:4]+[t&M,t>>32,b,d]
    m=list(struct.unpack('<16I',block))
    def g(a,b,c,dd,x,y):
        v[a]=(v[a]+v[b]+x)&M; v[dd]=rotr(v[dd]^v[a],16); v[c]=(v[c]+v[dd])&M; v[b]=rotr(v[b]^v[c],12)
        v[a]=(v[a]+v[b]+y)&M; v[dd]=rotr(v[dd]^v[a],8); v[c]=(v[c]+v[dd])&M; v[b]=rotr(v[b]^v[c],7)
    for r in range(7):
        g(0,4,8,12,m[0],m[1]);g(1,5,9,13,m[2],m[3]);g(2,6,10,14,m[4],m[5]);g(3,7,11,15,m[6],m[7])
        g(0,5,10,15,m[8],m[9]);g(1,6,11,12,m[10],m[11]);g(2,7,8,13,m[12],m[13]);g(3,4,9,14,m[14],m[15])
        m=[m[PERM[i]] for i in range(16)]
    return [v[i]^v[i+8] for i in range(8)]
def b3(key,data,flags):
    assert len(data)<=1024
    cv=key[:]; blocks=[data[i:i+64] for i in range(0,len(data),64)] or [b'']
    for i,bl in enumerate(blocks):
        f=flags|(1 if i==0 else 0)|((2|8) if i==len(blocks)-1 else 0)
        cv=compress(cv,bl.ljust(64,b'\0'),0,len(bl),f)
    return struct.pack('<8I',*cv)
def hash(d): return b3(IV,d,0)
def kdf(ctx,d):
    ck=b3(IV,ctx.encode(),32)
    return b3(list(struct.unpack('<8I',ck)),d,64)
assert hash(b'').hex().startswith('af1349b9f5f9a1a6a0404dea36dcc949')
assert hash(b'\0').hex().startswith('2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213')
def rotl(x,n): return ((x<<n)|(x>>(32-n)))&M
def chacha(key,n):
    out=b''; ctr=0
    k=list(struct.unpack('<8I',key))
    while len(out)<n:
        s=[0x61707865,0x3320646e,0x79622d32,0x6b206574]+k+[ctr&M,ctr>>32,0,0]
        w=s[:]
        def q(a,b,c,d):
            w[a]=(w[a]+w[b])&M;w[d]=rotl(w[d]^w[a],16);w[c]=(w[c]+w[d])&M;w[b]=rotl(w[b]^w[c],12)
            w[a]=(w[a]+w[b])&M;w[d]=rotl(w[d]^w[a],8);w[c]=(w[c]+w[d])&M;w[b]=rotl(w[b]^w[c],7)
        for _ in range(10):
            q(0,4,8,12);q(1,5,9,13);q(2,6,10,14);q(3,7,11,15);q(0,5,10,15);q(1,6,11,12);q(2,7,8,13);q(3,4,9,14)
        out+=struct.pack('<16I',*[(w[i]+s[i])&M for i in range(16)]); ctr+=1
    return out[:n]
assert chacha(bytes(32),4).hex()=='76b8e0ad'
K0=bytes(range(32)); K1=kdf("pponnx ratchet 1",K0); K2=kdf("pponnx ratchet 1",K1)
N=bytes(range(32,64)); S=kdf("pponnx session 1",K2+N); Sd=kdf("pponnx dealt 1",K0)
print('K1',K1.hex()); print('K2',K2.hex())
print('sid',kdf("pponnx sid 1",S)[:16].hex(),'dealt sid',kdf("pponnx sid 1",Sd)[:16].hex())
D=bytes(range(64,96)); q=0x0102030405060708; slot=0x0a0b0c0d
def seed(S,side): return kdf("pponnx stream 1",S+D+struct.pack('<QIB',q,slot,side))
for nm,SS in(('session',S),('dealt',Sd)):
  for side in (0,1):
    st=chacha(seed(SS,side),9000)
    for k in (1,20,32,40,52,60):
        w=4 if k<=32 else 8; n=1000
        ws=[int.from_bytes(st[i*w:i*w+w],'little')&((1<<k)-1) for i in range(n)]
        # words 0, 1 and 999
        print(nm,side,k,[hex(x) for x in ws[:2]+ws[-1:]])
P=(1<<61)-1
s=kdf("pponnx check 1",bytes([7]*32)+bytes([9]*32)+struct.pack('<IB',3,1))
st=chacha(s,64); print('check',[int.from_bytes(st[i*8:i*8+8],'little')&P for i in range(4)])
# key file: device 16x11, bundle 32x22, K1 at epoch 1
body=b'pponnx-K'+struct.pack('<I',1)+b'\x11'*16+b'\x22'*32+struct.pack('<Q',1)+K1
print('keyfile',(body+hash(body)).hex())
b=b'pponnx-L'+struct.pack('<IQ',1,1)+b'\x11'*16+b'\x22'*32+b'\x33'*16+struct.pack('<Q',5)
print('ledger1',(b+hash(b)).hex())
h=b'pponnx-P'+struct.pack('<I',1)+b'\x11'*16+b'\x22'*32+struct.pack('<QQI',5,1,1)+struct.pack('<IQ',4,3)
hc=hash(h); r=bytes([1,2,3]); print('pairs',(h+hc+r+hash(hc+struct.pack('<Q',5)+r)).hex())
c=b'pponnx-C'+struct.pack('<I',1)+b'\x11'*16+b'\x22'*32+b'\x33'*32+struct.pack('<I',1)+struct.pack('<IBI',6,1,1)+struct.pack('<QQ',1,P-1)
print('check file',(c+hash(c)).hex())
