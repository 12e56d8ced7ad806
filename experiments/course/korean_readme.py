"""README.ko.md: Korean words around the code of README.md, and the contents of the course."""

import re


def korean_readme(readme: str, contents: str) -> str:
    """The Korean README.

    Args:
        readme: the text of README.md; its code blocks are shown as they are.
        contents: the list of lessons.

    Raises:
        ValueError: README.md has no block, or several, that begin as the text below asks for.
    """
    blocks = re.findall(r"^```\w*\n.*?^```$", readme, re.DOTALL | re.MULTILINE)

    def block(wanted: re.Match[str]) -> str:
        found = [block for block in blocks if block.partition("\n")[2].startswith(wanted[1])]
        if len(found) != 1:
            raise ValueError(f"README.md has {len(found)} code blocks that begin with {wanted[1]!r}")
        return found[0]

    return re.sub(r"^<<(.*?)>>$", block, TEXT, flags=re.DOTALL | re.MULTILINE).replace(
        "<contents>\n", contents
    )


# A line <<...>> stands for the code block of README.md that begins so.
TEXT = """\
# jaxcnn

[English](README.md)

JAX로 만든 합성곱 신경망(CNN) 도구 모음이다. 세 층으로 되어 있어 한눈에 들어온다. 배열을 받아 배열을
돌려주는 순수 함수, 그 위에 얇게 얹은 Flax NNX 모듈, 그리고 구조 하나가 읽기 쉬운 파일 하나에 담긴
모델이다. PyTorch와 같은 값을 내고 어느 인수가 잘못되었는지 짚어 주는 합성곱·풀링·정규화가 필요한 연구자,
노트북이나 GPU, TPU에서 학습 스크립트를 돌리려는 사람, 그리고 CNN이 무엇을 하는지 직접 돌려 보며 배우려는
사람을 위해 만들었다. Python 3.11 이상이 필요하다.

## 명령 세 개

`python3`와 패키지 저장소만 있으면 된다.

<<git clone>>

`.venv`를 만들고 설치한 뒤, scikit-learn에 들어 있는 손글씨 숫자로 LeNet-5를 학습한다.

<<1 cpu device>>

결과는 `runs/digits-lenet5/`에 남는다. 손실과 정확도 곡선은 `curves.png`, 어떤 숫자를 어떤 숫자로 잘못
보았는지는 `confusion.png`에서 볼 수 있다.

<<make lessons>>

CNN 강의에 나오는 공식과 예제, 그림을 하나하나 실제로 계산하고 그린다. 그림은 `runs/lessons/`에 저장된다.

<<make test>>

테스트를 실행한다. 2코어에서 30분쯤 걸린다. PyTorch가 설치되어 있으면 PyTorch와 비교하는 테스트도 함께 돈다.

## 강의

각 절에는 공식과 숫자를 넣은 식, 계산한 결과, 그림이 있다. 모든 숫자는 강의에서 말하는 값과 비교하며,
그림까지 담은 문서는 [docs/lessons.ko.md](docs/lessons.ko.md)이다.

<contents>

![한 창이 세 채널을 지난다](docs/lessons/three_channels.png)

## 함수

모든 배열은 채널이 마지막 축이다. 이미지는 (batch, \\*spatial, channels), 커널은 (\\*window, channels_in
// groups, channels_out)이고, 공간 축은 1개부터 3개까지 쓸 수 있다.

<<import jax
>>

함수는 모두 순수 함수라서 미분, `vmap`, `jit`을 자유롭게 조합할 수 있다. `help(F.conv)`를 보면 식과 모양,
오류, 출처, 실행되는 예제가 나온다. 옵션의 뜻과 계산 결과는 PyTorch와 같다. 잘못된 인수는 추적(trace)하는
순간에 이름으로 짚어 준다.

<<>>> F.conv(x, kernel, groups=2)>>

## CPU에서도 빠른 역전파

XLA는 CPU에서 많은 합성곱을 느린 코드로 바꾼다. jaxcnn의 함수는 JAX의 미분과 변환을 그대로 쓰면서, 모양에
따라 고른 정확한 변환으로 컴파일된다. 다른 라이브러리의 코드에도 한 줄로 쓸 수 있다.

<<import jaxcnn
>>

측정한 시간은 [docs/performance.md](docs/performance.md)에 있다.

## 모듈과 모델

모듈은 매개변수를 선언하고 함수 하나를 부를 뿐이며, 모델은 이름이 붙은 단계(stage)를 이어 놓은 것이다.

<<import jax.numpy as jnp>>

모델 안의 아무 단계나 꺼내 쓸 수 있어서, 다른 모델의 백본으로도 쓸 수 있다.

<<class Pyramid>>

모델 목록은 `python -m jaxcnn models`로, 매개변수 수와 연산량, 논문의 정확도는
[docs/models.md](docs/models.md)에서 볼 수 있다.

## 공개된 가중치

torchvision의 가중치를 PyTorch 없이 그대로 읽는다. `.pth`와 `.safetensors` 파일 모두 쓸 수 있다.

<<$ python experiments/classify.py>>

![사진 두 장과 가능성이 가장 높은 클래스 다섯 개](docs/predictions.png)

## 신경망 들여다보기

층마다 출력 크기, 매개변수, 연산량, 수용 영역을 보여 주는 표와, 두 모델이 처음으로 달라지는 층을 찾는
함수가 있다.

<<from jaxcnn import analysis>>

한 이미지에서 신경망이 무엇을 보는지 명령 하나로 한 장에 그린다. 상자를 주면 그 클래스의 근거가 상자 안에
얼마나 모여 있는지도 알려 준다.

<<python experiments/explain.py>>

![풀밭 위의 고양이에서 신경망이 보는 것](docs/explanation.jpg)

## 내 이미지로 학습하기

클래스마다 폴더를 하나씩 만들면 된다. 각 클래스의 5분의 1을 테스트에 쓴다.

<<photos/cat>>

<<make train ARGS="--dataset folder>>

## GPU와 TPU

<<make train EXTRA=cuda>>

지금까지 측정한 값은 모두 CPU에서 얻은 것이다. GPU와 TPU에서는 아직 돌려 보지 못했다.
"""
