"""Two files that PyTorch 2.13 made, so that they are read where there is no PyTorch.

net = torch.nn.Linear(3, 2)  # weight: 0, 1, ..., 5; bias: 0.5, -0.5
torch.save(net.state_dict(), "linear.pth")
torch.save(net.state_dict(), "linear.pth", _use_new_zipfile_serialization=False)
"""

from __future__ import annotations

import base64
import zlib

ZIP = zlib.decompress(
    base64.b85decode(
        "c-o~@&ui0A9Dhl=G|SvNop$SF9`w?I>ymZ-g_DgSx#VE22*HCPO=A<xn!V(8Lt#*m4Lk_?2Ppm*dJ{Z)+eJKh^B|tQ"
        "3SN9KX={?wj?FK9eYE+0e!OqK-&a?d6aX9tMj`_ifMa(|-CJ+zNH6R?abzh29>$|b8;0vRrh#m?<MVgDmg$+TJGOy%"
        "2v!@A%Bw6UJ236Gg&=Jp*E6hw)<w4C^O|QiySCHPklFEFPut(%A(PLmX^il3rrtJTDunQ|<Lc;s_$LpiR0`(^kX0GH"
        "8+%=tR#*hNdkRo!g*k@P3ZqcRkbhwj7c&T6Xuw$&9~Crh-G_4)*0EAn$Romxl~!m3=L7r^yr@t|@KT6fK=5({Ug;jf"
        "tU8U8wOteGq#|%Jc)p~PYQfwgTn>!yo1Twr0k0~Q@B7U{T}g9!|HGT>Sc$Cq*otSt@}S~{$F8@lBdt#+OW9=M`ymqg"
        "_rJb9C+8q*JbeyShxGmGYPw^$JG*8F$<pQ+g~?IgBnGw*;7=M$&=U>JgPnna=2K+4q*r8V>s-2naBPGelXy6~{XIuo"
        "jh*OW7HmhmdR>sETmNGqWbJL^uO0lstB2RS9pY&5)sNRp_`%XCj@Dw1L|Iw|XVE9xABo<LM=w{105?%@4r~qdhTT;?"
        "cL|C-Q9gOwesKExUjfBo0|rO+P0z+1_)I64hi12AY5lB5gi=`)g=%S|SQcyLics39Z3>l2MW~d-qEM=pDq^izEe2!K"
        "oB8xPkA36=mlQEO^ckJd%!u>EJ(vVX=Pw%rdK4Hl(n*f!2<2iNClQX3xlPhUr(ixt)1bk~^d-^Jj-8F6ztA8)H%Vx;"
        "`QlKEi9^LCG}=9LG3eKS&@p9;zSEWXc~f9=x78Jvz1dH`#;gs2Tw-VFaQ~eOcZ?(VJov+gzr$O1iVZPbkRRs$1#)AP"
        "Q~"
    )
)
PICKLES = zlib.decompress(
    base64.b85decode(
        "c-n1IJ8#=C5SA#}PS_^RtB<rxM|Ck&+ezT58Hy}KU+%)C5M+t4Sg4{;JS9i~172*T`3)H|_Fwe(^d}U^kdureC=h~o"
        "0PpdA-|^<`is!f2Cx2gm|MhvlJ7*vMc;si`1aix9oM~y$BqoneRcW;;z@-AYL77}5<|<M}s^bFKrQ{UE^QnrgzEBpt"
        "8Tf&0QP5_lL}&>nJ$mT^p)Gvr*BGXlKu7phMVtxI<SId8vHVk+s#2xzb%Gq6HzRNZ*`|&&r6(BzOVE@_){QFEx#dx*"
        "#+A;~2vuQC8J+exctIdLH9J+t69xXNg`eam#;>a&hnC!=n&BYqy$z50M~A~<IDmE|G?`YUt^E;U?Tc^(6W$Wmg(uu4"
        "@Sj<&=@G)?5o|Q0jCE{bGb7f_&;COlg#G?OFN7yqM=(O$YS0$2E!+j{tdMpQ_D1lun!z)<POZ@og>f2V49}bV3rRr-"
        "_Gj?28S39QUJ2J)JEq_JR&VTqS=@)DFx9O;^Zv}=kvpbKHYd9|X7|ZD_xlcn!;O&"
    )
)
